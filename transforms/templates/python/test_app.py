"""Run it with `PYTHONPATH=sdk python3 -m unittest`."""

import unittest

from txconnect_transform import Failure, Record

from app import mask, masked


class Mask(unittest.TestCase):
    def test_the_last_four_characters_and_the_dashes_stay(self):
        self.assertEqual(masked("aad71e75-cde2-488e-a280-938ad5a104f2"), "********-****-****-****-********04f2")
        self.assertEqual(masked("abc"), "abc")

    def test_a_field_that_is_not_there_is_left_alone(self):
        record = mask(Record({"account": "12345", "amount": 1}), {"fields": ["account", "counterparty"]})
        self.assertEqual(record.value, {"account": "*2345", "amount": 1})

    def test_a_number_is_refused(self):
        with self.assertRaises(Failure):
            mask(Record({"account": 12345}), {"fields": ["account"]})
