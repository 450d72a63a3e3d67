"""Hides account numbers but for their last four characters."""

from txconnect_transform import Failure, transform

CONFIG_SCHEMA = {
    "type": "object",
    "properties": {"fields": {"type": "array", "items": {"type": "string"}, "description": "The fields to mask."}},
    "required": ["fields"],
    "additionalProperties": False,
}


@transform("{{name}}", version="1.0.0", config_schema=CONFIG_SCHEMA)
def mask(record, config):
    for field in config["fields"]:
        account = record.value.get(field, "")
        if not isinstance(account, str):
            raise Failure("not_text", f"{field} is not a text")
        if account:
            record.value[field] = masked(account)
    return record


def masked(account: str) -> str:
    """Letters and digits become `*`, but for the last four characters."""
    return "".join("*" if character.isalnum() else character for character in account[:-4]) + account[-4:]
