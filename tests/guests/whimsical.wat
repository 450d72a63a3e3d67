;; A transform of single records that answers otherwise each time it is asked, written by hand so that tests need no
;; toolchain. For every record it draws a number of 64 bits, and makes of the record
;;
;;   no row         in 12 of 64 cases
;;   a failure      in 4, with the code `drawn`
;;   a trap         in 1, and only if a second number wants it too: mostly it is gone when the record comes again
;;   1 to 3 rows    else, each with the topic of its record or with the one that the config names
;;
;; The value of a row is that of the record, an object, with three members more: the number drawn, the row's place among
;; the rows of the record from 0, and how many rows there are. It needs `allow: [random]`.
(component
  (import "txconnect:transform/description@1.0.0" (instance $types
    (type $needs0 (flags "keys" "headers" "positions"))
    (export "needs" (type $needs (eq $needs0)))
    (type $description0 (record
      (field "name" string) (field "version" string) (field "needs" $needs) (field "config-schema" string)))
    (export "description" (type (eq $description0)))))
  (import "wasi:random/random@0.2.0" (instance $random (export "get-random-u64" (func (result u64)))))
  (alias export $types "needs" (type $needs))
  (alias export $types "description" (type $description))

  (core module $guest
    (import "random" "u64" (func $random (result i64)))
    (memory (export "memory") 64)
    (global $next (mut i32) (i32.const 32768))
    (global $routed_length (mut i32) (i32.const 0))
    (func $alloc (param $size i32) (result i32)
      (local $at i32)
      (local.set $at (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
      (global.set $next (i32.add (local.get $at) (local.get $size)))
      (local.get $at))
    (func (export "realloc") (param $old i32) (param $old_size i32) (param $align i32) (param $size i32) (result i32)
      (call $alloc (local.get $size)))
    (func (export "after") (param i32)
      (global.set $next (i32.const 32768)))

    (func (export "describe") (result i32) (i32.const 1536))
    (data (i32.const 16) "whimsical")
    (data (i32.const 32) "1.0.0")
    (data (i32.const 48) "{\"type\":\"string\"}")
    (data (i32.const 1536) "\10\00\00\00" "\09\00\00\00" "\20\00\00\00" "\05\00\00\00" "\00\00\00\00" "\30\00\00\00" "\11\00\00\00")

    ;; Keeps the name between the quotation marks at 4096.
    (func (export "init") (param $config i32) (param $length i32) (result i32)
      (global.set $routed_length (i32.sub (local.get $length) (i32.const 2)))
      (memory.copy (i32.const 4096) (i32.add (local.get $config) (i32.const 1)) (global.get $routed_length))
      (i32.const 1584))
    (data (i32.const 1584) "\00\00\00\00")

    ;; Appends bytes to what is allocated; answers where they end.
    (func $put (param $to i32) (param $from i32) (param $length i32) (result i32)
      (memory.copy (local.get $to) (local.get $from) (local.get $length))
      (i32.add (local.get $to) (local.get $length)))
    ;; Appends a number in decimal digits.
    (func $put_number (param $to i32) (param $number i64) (result i32)
      (local $at i32)
      (local.set $at (i32.const 2080))
      (loop $digits
        (local.set $at (i32.sub (local.get $at) (i32.const 1)))
        (i64.store8 (local.get $at) (i64.add (i64.const 48) (i64.rem_u (local.get $number) (i64.const 10))))
        (local.set $number (i64.div_u (local.get $number) (i64.const 10)))
        (br_if $digits (i64.ne (local.get $number) (i64.const 0))))
      (call $put (local.get $to) (local.get $at) (i32.sub (i32.const 2080) (local.get $at))))

    (func (export "transform")
      (param $topic i32) (param $topic_length i32) (param $partition i32) (param $offset i64)
      (param $timed i32) (param $timestamp i64) (param $keyed i32) (param $key i32) (param $key_length i32)
      (param $valued i32) (param $value i32) (param $value_length i32) (param $headers i32) (param $header_count i32)
      (result i32)
      (local $drawn i64) (local $choice i32) (local $of i32) (local $number i32) (local $row i32) (local $start i32)
      (local $end i32)
      (local.set $drawn (call $random))
      (local.set $choice (i32.wrap_i64 (i64.and (local.get $drawn) (i64.const 63))))
      (if (i32.lt_u (local.get $choice) (i32.const 12)) (then (return (i32.const 1056))))
      (if (i32.lt_u (local.get $choice) (i32.const 16)) (then (return (i32.const 1072))))
      (if (i32.eq (local.get $choice) (i32.const 16))
        (then (if (i64.eqz (i64.and (call $random) (i64.const 7))) (then (unreachable)))))
      (local.set $of (i32.add (i32.const 1)
        (i32.wrap_i64 (i64.rem_u (i64.shr_u (local.get $drawn) (i64.const 8)) (i64.const 3)))))
      (local.set $row (call $alloc (i32.mul (local.get $of) (i32.const 56))))
      (memory.fill (local.get $row) (i32.const 0) (i32.mul (local.get $of) (i32.const 56)))
      (i32.store (i32.const 1088) (i32.const 0))
      (i32.store (i32.const 1092) (local.get $row))
      (i32.store (i32.const 1096) (local.get $of))
      (loop $rows
        (local.set $start (call $alloc (i32.add (local.get $value_length) (i32.const 128))))
        (local.set $end (call $put (local.get $start) (local.get $value) (i32.sub (local.get $value_length) (i32.const 1))))
        (local.set $end (call $put (local.get $end) (i32.const 128) (i32.const 11)))
        (local.set $end (call $put_number (local.get $end) (i64.shr_u (local.get $drawn) (i64.const 1))))
        (local.set $end (call $put (local.get $end) (i32.const 144) (i32.const 10)))
        (local.set $end (call $put_number (local.get $end) (i64.extend_i32_u (local.get $number))))
        (local.set $end (call $put (local.get $end) (i32.const 160) (i32.const 6)))
        (local.set $end (call $put_number (local.get $end) (i64.extend_i32_u (local.get $of))))
        (local.set $end (call $put (local.get $end) (i32.const 176) (i32.const 1)))
        ;; The value is replaced.
        (i32.store offset=16 (local.get $row) (i32.const 1))
        (i32.store offset=20 (local.get $row) (i32.const 1))
        (i32.store offset=24 (local.get $row) (local.get $start))
        (i32.store offset=28 (local.get $row) (i32.sub (local.get $end) (local.get $start)))
        (if (i64.ne (i64.const 0)
              (i64.and (i64.const 1)
                (i64.shr_u (local.get $drawn) (i64.extend_i32_u (i32.add (i32.const 40) (local.get $number))))))
          (then
            (i32.store offset=32 (local.get $row) (i32.const 1))
            (i32.store offset=36 (local.get $row) (i32.const 4096))
            (i32.store offset=40 (local.get $row) (global.get $routed_length))))
        (local.set $row (i32.add (local.get $row) (i32.const 56)))
        (local.set $number (i32.add (local.get $number) (i32.const 1)))
        (br_if $rows (i32.lt_u (local.get $number) (local.get $of))))
      (i32.const 1088))
    (data (i32.const 128) ",\"attempt\":")
    (data (i32.const 144) ",\"number\":")
    (data (i32.const 160) ",\"of\":")
    (data (i32.const 176) "}")
    ;; No row.
    (data (i32.const 1056) "\00\00\00\00" "\00\05\00\00" "\00\00\00\00")
    ;; A failure with code and message.
    (data (i32.const 1072) "\01\00\00\00" "\60\00\00\00" "\05\00\00\00" "\70\00\00\00" "\0c\00\00\00")
    (data (i32.const 96) "drawn")
    (data (i32.const 112) "as was drawn"))

  (core func $random (canon lower (func $random "get-random-u64")))
  (core instance $guest (instantiate $guest (with "random" (instance (export "u64" (func $random))))))
  (alias core export $guest "memory" (core memory $memory))
  (alias core export $guest "realloc" (core func $realloc))
  (alias core export $guest "after" (core func $after))
  (alias core export $guest "describe" (core func $guest_describe))
  (alias core export $guest "init" (core func $guest_init))
  (alias core export $guest "transform" (core func $guest_transform))

  (type $bytes (list u8))
  (type $maybe_bytes (option $bytes))
  (type $header (record (field "name" string) (field "value" $maybe_bytes)))
  (type $headers (list $header))
  (type $maybe_time (option s64))
  (type $input (record
    (field "topic" string) (field "partition" s32) (field "offset" s64) (field "timestamp" $maybe_time)
    (field "key" $maybe_bytes) (field "value" $maybe_bytes) (field "headers" $headers)))
  (type $change (variant (case "keep") (case "replace" $maybe_bytes)))
  (type $maybe_topic (option string))
  (type $maybe_headers (option $headers))
  (type $row (record
    (field "key" $change) (field "value" $change) (field "topic" $maybe_topic) (field "headers" $maybe_headers)))
  (type $failure (record (field "code" string) (field "message" string)))
  (type $rows (list $row))
  (type $outcome (result $rows (error $failure)))
  (type $started (result (error string)))

  (func $describe (result $description)
    (canon lift (core func $guest_describe) (memory $memory)))
  (func $init (param "config" string) (result $started)
    (canon lift (core func $guest_init) (memory $memory) (realloc $realloc)))
  (func $transform (param "input" $input) (result $outcome)
    (canon lift (core func $guest_transform) (memory $memory) (realloc $realloc) (post-return $after)))

  ;; Types of an exported interface must be exported with it, which takes a component of its own.
  (component $interface
    (type $needs0 (flags "keys" "headers" "positions"))
    (import "needs" (type $needs (eq $needs0)))
    (type $description0 (record
      (field "name" string) (field "version" string) (field "needs" $needs) (field "config-schema" string)))
    (import "description" (type $description (eq $description0)))
    (type $bytes (list u8))
    (type $maybe_bytes (option $bytes))
    (type $header0 (record (field "name" string) (field "value" $maybe_bytes)))
    (import "header" (type $header (eq $header0)))
    (type $headers (list $header))
    (type $maybe_time (option s64))
    (type $input0 (record
      (field "topic" string) (field "partition" s32) (field "offset" s64) (field "timestamp" $maybe_time)
      (field "key" $maybe_bytes) (field "value" $maybe_bytes) (field "headers" $headers)))
    (import "input" (type $input (eq $input0)))
    (type $change0 (variant (case "keep") (case "replace" $maybe_bytes)))
    (import "change" (type $change (eq $change0)))
    (type $maybe_topic (option string))
    (type $maybe_headers (option $headers))
    (type $row0 (record
      (field "key" $change) (field "value" $change) (field "topic" $maybe_topic) (field "headers" $maybe_headers)))
    (import "row" (type $row (eq $row0)))
    (type $failure0 (record (field "code" string) (field "message" string)))
    (import "failure" (type $failure (eq $failure0)))
    (type $rows (list $row))
    (type $outcome (result $rows (error $failure)))
    (type $started (result (error string)))
    (import "describe" (func $describe (result $description)))
    (import "init" (func $init (param "config" string) (result $started)))
    (import "transform" (func $transform (param "input" $input) (result $outcome)))


    (export $description1 "description" (type $description))
    (export $header1 "header" (type $header0))
    (type $headers1 (list $header1))
    (type $input2 (record
      (field "topic" string) (field "partition" s32) (field "offset" s64) (field "timestamp" $maybe_time)
      (field "key" $maybe_bytes) (field "value" $maybe_bytes) (field "headers" $headers1)))
    (export $input1 "input" (type $input2))
    (export $change1 "change" (type $change0))
    (type $maybe_headers1 (option $headers1))
    (type $row2 (record
      (field "key" $change1) (field "value" $change1) (field "topic" $maybe_topic) (field "headers" $maybe_headers1)))
    (export $row1 "row" (type $row2))
    (export $failure1 "failure" (type $failure0))
    (type $rows1 (list $row1))
    (type $outcome1 (result $rows1 (error $failure1)))
    (export "describe" (func $describe) (func (result $description1)))
    (export "init" (func $init) (func (param "config" string) (result $started)))
    (export "transform" (func $transform) (func (param "input" $input1) (result $outcome1))))
  (instance $interface (instantiate $interface
    (with "needs" (type $needs)) (with "description" (type $description)) (with "header" (type $header))
    (with "input" (type $input)) (with "change" (type $change)) (with "row" (type $row))
    (with "failure" (type $failure))
    (with "describe" (func $describe)) (with "init" (func $init)) (with "transform" (func $transform))))
  (export "txconnect:transform/records@1.0.0" (instance $interface)))
