"""The SDK under Python itself: `python3 -m unittest discover -s tests -t .` in transforms/python."""

import json
import unittest
from decimal import Decimal
from types import SimpleNamespace

from txconnect_transform import Failure, Header, Record, transform
from txconnect_transform import exact_json
from txconnect_transform.columns import cells, column
from txconnect_transform.host import Err


def batch(values, **more):
    none = column([])
    parts = dict(topics=["payments"], topic_of=[], partitions=[], offsets=[], timestamps=[], keys=none)
    parts["headers"] = SimpleNamespace(counts=[], names=none, values=none)
    values = [value.encode() if isinstance(value, str) else value for value in values]
    return SimpleNamespace(**{**parts, **more, "values": column(values)})


def made(change, **about):
    """What the builder finds beside a function."""
    module = {"__name__": "app"}
    function = type(change)(change.__code__, module | {"Failure": Failure, "Record": Record, "Header": Header, "b": bytes}, "change", change.__defaults__, change.__closure__)
    transform("tested", **about)(function)
    return function.__globals__["Batches"]()


def run(change, values, config="null", about=None, **more):
    component = made(change, **(about or {}))
    component.init(config)
    return component.transform(batch(values, **more))


class Transforms(unittest.TestCase):
    def test_a_record_that_is_returned_as_it_is_costs_nothing(self):
        def looked_at(record):
            record.value["a"]
            return record

        for change in (lambda record: record, lambda record: True, lambda record: record.copy(), looked_at):
            output = run(change, ['{"a":1}', '{"a":"ü"}'])
            self.assertEqual(output.sources, [0, 1])
            self.assertEqual((output.values, output.keys, output.headers, output.routing), (None,) * 4)
            self.assertEqual(output.failures, [])

    def test_a_value_is_replaced_or_changed_in_place(self):
        def in_place(record):
            record.value["b"] = 2
            return record

        def set_anew(record):
            record.value = {**record.value, "b": 2}
            return record

        for change in (
            in_place,
            set_anew,
            lambda record: record.copy(value={**record.value, "b": 2}),
            lambda record: Record({**record.value, "b": 2}),
        ):
            values = cells(run(change, ['{"a":"ü"}', '{"a":1}']).values)
            self.assertEqual(values, ['{"a":"ü","b":2}'.encode(), b'{"a":1,"b":2}'])

    def test_none_and_false_drop_a_record_and_lists_make_several_rows(self):
        def change(record):
            if record.value == 4:
                return (Record(number) for number in (7, 8))
            return [None, False, [], [Record(1), Record(2)], None, True][record.value]

        output = run(change, ["0", "1", "2", "3", "4", "5"])
        self.assertEqual(output.sources, [3, 3, 4, 4, 5])
        self.assertEqual(cells(output.values), [b"1", b"2", b"7", b"8", b"5"])

    def test_a_topic_routes_a_row_and_the_others_keep_theirs(self):
        def change(record):
            return record.copy(topic="refunds") if record.value == 1 else record

        routing = run(change, ["0", "1", "2"], topics=["a", "b"], topic_of=[0, 1, 1]).routing
        self.assertEqual([routing.topics[place] for place in routing.topic_of], ["a", "refunds", "b"])

    def test_tombstones_pass_untouched_unless_they_are_asked_for(self):
        self.assertEqual(run(lambda record: None, ["1", None]).sources, [1])
        about = {"tombstones": True}
        self.assertEqual(run(lambda record: None, ["1", None], about=about).sources, [])
        output = run(lambda record: Record("gone" if record.value is None else None), ["1", None], about=about)
        self.assertEqual(cells(output.values), [None, b'"gone"'])
        self.assertEqual(cells(run(lambda record: Record(2), ["1", None, "1"]).values), [b"2", None, b"2"])

        def looked_at(record):
            record.value
            return record

        self.assertIsNone(run(looked_at, ["null", None], about=about).values)

    def test_what_is_raised_fails_its_record_alone_and_none_of_its_rows_stay(self):
        def change(record):
            if record.value == 1:
                raise Failure("account_missing", "no account")
            if record.value == 2:
                return [Record(0), 7]
            if record.value == 3:
                return int("the account 4711")
            if record.value == 4:
                return record.value["account"]
            return True

        output = run(change, ["0", "1", "2", "3", "4", "5", "{", b"\xff"])
        self.assertEqual(output.sources, [0, 5])
        self.assertIsNone(output.values)
        failures = [(failure.record, failure.code) for failure in output.failures]
        self.assertEqual(failures, [(1, "account_missing")] + [(record, "exception") for record in (2, 3, 4, 6, 7)])
        messages = [failure.message for failure in output.failures]
        self.assertEqual(messages[0], "no account")
        self.assertIn("a list of records", messages[1])
        # ValueError quotes the text.
        self.assertRegex(messages[2], r"^ValueError \(test_transforms\.py, line \d+, in change\)$")
        self.assertRegex(messages[3], r"^TypeError: 'int' object is not subscriptable \(test_transforms\.py")

    def test_answers_that_are_none_are_refused_with_the_way_out(self):
        def key(record):
            return record.copy(key=7)

        def topic(record):
            return record.copy(topic=7)

        def a_set(record):
            return Record({1})

        def raw(record):
            record.bytes = "text"
            return record

        for change, why in (
            (lambda record: "text", "returns a record"),
            (key, "a key"),
            (topic, "`topic`"),
            (a_set, "cannot be written as JSON"),
            (raw, "bytes or None"),
        ):
            (failure,) = run(change, ["1"]).failures
            self.assertIn(why, failure.message)

    def test_keys_are_seen_where_they_are_needed_and_set_without(self):
        seen = []

        def look(record):
            seen.append(record.key)
            return record

        keys = column([b"k", None])
        about = {"needs": ["keys"]}
        self.assertIsNone(run(look, ["1", "2"], about=about, keys=keys).keys)
        self.assertEqual(seen, [b"k", None])

        def change(record):
            return record.copy(key="new") if record.value == 1 else record

        self.assertEqual(cells(run(change, ["1", "2"], about=about, keys=keys).keys), [b"new", None])
        self.assertEqual(cells(run(lambda record: record.copy(key="n"), ["1", "2"]).keys), [b"n", b"n"])
        with self.assertRaises(Err) as refused:
            run(change, ["1", "2"])
        self.assertIn("needs=['keys']", refused.exception.value)

    def test_headers_are_seen_added_and_left_alone(self):
        headers = SimpleNamespace(counts=[2, 0], names=column([b"a", b"b"]), values=column([b"1", None]))
        about = {"needs": ["headers"]}
        self.assertIsNone(run(lambda record: record.copy(), ["1", "2"], about=about, headers=headers).headers)

        def add(record):
            record.headers.append(Header("c", "ü"))
            return record

        output = run(add, ["1", "2"], about=about, headers=headers).headers
        self.assertEqual(output.counts, [3, 1])
        self.assertEqual(cells(output.names), [b"a", b"b", b"c", b"c"])
        self.assertEqual(cells(output.values), [b"1", None, "ü".encode(), "ü".encode()])

    def test_positions_are_seen_where_they_are_needed(self):
        seen = []
        positions = dict(partitions=[3], offsets=[2**60], timestamps=[-1])
        run(lambda record: seen.append(record), ["1"], about={"needs": ["positions"]}, **positions)
        self.assertEqual((seen[0].partition, seen[0].offset, seen[0].timestamp), (3, 2**60, -1))

    def test_values_that_are_not_json_are_read_and_written_as_bytes(self):
        def reverse(record):
            record.bytes = record.bytes[::-1]
            return record

        self.assertEqual(cells(run(reverse, [b"\xff\x01", "ab"]).values), [b"\x01\xff", b"ba"])

    def test_the_config_is_prepared_once_and_one_that_does_not_fit_is_refused_with_the_reason(self):
        prepared = []

        def init(config):
            prepared.append(config)
            if config is None:
                raise Failure("config", "`fields` is missing")
            return set(config["fields"])

        def change(record, fields):
            return record.value in fields

        output = run(change, ['"a"', '"b"'], config='{"fields":["b"]}', about={"init": init})
        self.assertEqual((output.sources, len(prepared)), ([1], 1))
        with self.assertRaises(Err) as refused:
            made(change, init=init).init("null")
        self.assertEqual(refused.exception.value, "`fields` is missing")

    def test_mistakes_in_what_a_transform_says_about_itself_are_found_when_it_is_made(self):
        with self.assertRaisesRegex(TypeError, "with a name"):
            transform(lambda record: True)
        with self.assertRaisesRegex(TypeError, "'key'"):
            transform("a", needs=["key"])
        change = transform("a")(type(run)((lambda record: True).__code__, {}))
        with self.assertRaisesRegex(TypeError, "one transform"):
            transform("b")(change)


class ExactJson(unittest.TestCase):
    def test_no_digit_of_a_number_is_lost(self):
        for text in (
            '{"a":12345678901234567890,"b":-0.12345678901234567890,"d":12.50,"e":[1788322741168.25,{}],"f":["ü",[],null,true]}',
            '{"c":1E+400,"\\\\\\"":{"d":0.10}}',
            "1.0",
        ):
            self.assertEqual(exact_json.write(exact_json.read(text)).decode(), text)

    def test_documents_with_decimals_are_written_as_those_without(self):
        for value in (None, True, "ü\"\\\n", 1.5, {"a": [1, {"b": None}, ()], "": {}}, {1: 2, None: 3, True: 4}, "\ud800"):
            plain = exact_json.write([value, 0])
            self.assertEqual(exact_json.write([value, Decimal(0)]), plain)
            self.assertEqual(json.loads(plain), json.loads(json.dumps([value, 0])))

    def test_what_is_no_json_is_refused(self):
        for value in (float("nan"), Decimal("NaN"), [Decimal(1), float("inf")], {(): Decimal(1)}, object(), [Decimal(1), {1}]):
            with self.assertRaises((TypeError, ValueError)):
                exact_json.write(value)
        for text in ("NaN", "Infinity", "{", ""):
            with self.assertRaises(ValueError):
                exact_json.read(text)


if __name__ == "__main__":
    unittest.main()
