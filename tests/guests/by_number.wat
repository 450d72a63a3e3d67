;; A transform of single records, written by hand so that tests need no toolchain. What it does with a record is said by
;; the first character of its value:
;;
;;   2  two rows like the record        5  traps
;;   3  none                            6  one row with the topic `other`
;;   4  fails with the code `four`      7  loops for ever
;;
;; Any other record stays as it is. It takes the config that its schema says, and refuses `false` itself.
;; Schema and length stand for what the test fills in.
(component
  (import "txconnect:transform/description@1.0.0" (instance $types
    (type $needs0 (flags "keys" "headers" "positions"))
    (export "needs" (type $needs (eq $needs0)))
    (type $description0 (record
      (field "name" string) (field "version" string) (field "needs" $needs) (field "config-schema" string)))
    (export "description" (type (eq $description0)))))
  (alias export $types "needs" (type $needs))
  (alias export $types "description" (type $description))

  (core module $guest
    (memory (export "memory") 4)
    (global $next (mut i32) (i32.const 32768))
    (func (export "realloc") (param $old i32) (param $old_size i32) (param $align i32) (param $size i32) (result i32)
      (local $at i32)
      (local.set $at (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
      (global.set $next (i32.add (local.get $at) (local.get $size)))
      (local.get $at))
    (func (export "after") (param i32)
      (global.set $next (i32.const 32768)))

    (func (export "describe") (result i32) (i32.const 1536))
    (data (i32.const 16) "by-number")
    (data (i32.const 32) "1.2.3")
    ;; Name, version, needs, schema.
    (data (i32.const 1536) "\10\00\00\00" "\09\00\00\00" "\20\00\00\00" "\05\00\00\00" "\00\00\00\00" "\00\08\00\00" "LENGTH")
    (data (i32.const 2048) "SCHEMA")

    (func (export "init") (param $config i32) (param $length i32) (result i32)
      (select (i32.const 1568) (i32.const 1584)
        (i32.eq (i32.load8_u (local.get $config)) (i32.const 0x66))))
    (data (i32.const 1568) "\01\00\00\00" "\40\00\00\00" "\1b\00\00\00")
    (data (i32.const 1584) "\00\00\00\00")
    (data (i32.const 64) "`false` is no config for me")

    (func (export "transform")
      (param $topic i32) (param $topic_length i32) (param $partition i32) (param $offset i64)
      (param $timed i32) (param $timestamp i64) (param $keyed i32) (param $key i32) (param $key_length i32)
      (param $valued i32) (param $value i32) (param $value_length i32) (param $headers i32) (param $header_count i32)
      (result i32)
      (local $first i32)
      (if (i32.and (local.get $valued) (i32.gt_u (local.get $value_length) (i32.const 0)))
        (then (local.set $first (i32.load8_u (local.get $value)))))
      (if (i32.eq (local.get $first) (i32.const 0x32)) (then (return (i32.const 1040))))
      (if (i32.eq (local.get $first) (i32.const 0x33)) (then (return (i32.const 1056))))
      (if (i32.eq (local.get $first) (i32.const 0x34)) (then (return (i32.const 1072))))
      (if (i32.eq (local.get $first) (i32.const 0x35)) (then (unreachable)))
      (if (i32.eq (local.get $first) (i32.const 0x36)) (then (return (i32.const 1104))))
      (if (i32.eq (local.get $first) (i32.const 0x37)) (then (loop $ever (br $ever))))
      (i32.const 1024))
    ;; One row, two rows, no row: of those at 1152, in which everything is kept.
    (data (i32.const 1024) "\00\00\00\00" "\80\04\00\00" "\01\00\00\00")
    (data (i32.const 1040) "\00\00\00\00" "\80\04\00\00" "\02\00\00\00")
    (data (i32.const 1056) "\00\00\00\00" "\80\04\00\00" "\00\00\00\00")
    ;; A failure with code and message.
    (data (i32.const 1072) "\01\00\00\00" "\60\00\00\00" "\04\00\00\00" "\70\00\00\00" "\14\00\00\00")
    (data (i32.const 96) "four")
    (data (i32.const 112) "fours are not wanted")
    ;; The row at 1280, whose topic is replaced.
    (data (i32.const 1104) "\00\00\00\00" "\00\05\00\00" "\01\00\00\00")
    (data (i32.const 1312) "\01\00\00\00" "\90\00\00\00" "\05\00\00\00")
    (data (i32.const 144) "other"))

  (core instance $guest (instantiate $guest))
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
