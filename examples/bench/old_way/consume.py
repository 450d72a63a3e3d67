"""The way that txconnect replaces: take 500 records, send them topic by topic, wait for each answer.

The bench sets BROKERS, TOPIC, GROUP, ROWS (it ends after so many), PROJECT, DATASET and BIGQUERY_EMULATOR_HOST.
"""

import json
import os
import sys
from collections import defaultdict

from confluent_kafka import Consumer, KafkaError, KafkaException
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery

BATCH = 500
SECONDS = 10


def main() -> None:
    project = os.environ["PROJECT"]
    dataset = os.environ["DATASET"]
    left = int(os.environ["ROWS"])
    client = bigquery.Client(project=project, credentials=AnonymousCredentials())
    consumer = Consumer(
        {
            "bootstrap.servers": os.environ["BROKERS"],
            "group.id": os.environ["GROUP"],
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    consumer.subscribe([os.environ["TOPIC"]])
    while left > 0:
        messages = consumer.consume(min(BATCH, left), SECONDS)
        rows = defaultdict(list)
        for message in messages:
            if message.error():
                raise KafkaException(message.error())
            rows[message.topic()].append(json.loads(message.value()))
        for topic, batch in rows.items():
            errors = client.insert_rows_json(f"{project}.{dataset}.{topic}", batch)
            if errors:
                sys.exit(f"{topic}: {len(errors)} rows were refused")
        if messages:
            consumer.commit()
        left -= len(messages)
    try:
        consumer.commit(asynchronous=False)
    except KafkaException as error:
        # The last commit that was not waited for is through already.
        if error.args[0].code() != KafkaError._NO_OFFSET:
            raise
    consumer.close()


main()
