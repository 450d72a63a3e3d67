"""Google's own clients against a local BigQuery: every way to write, read back with a query.

Usage: google_clients.py HOST:PORT. Ends with status 0 where everything is as it should be.
"""

import datetime
import decimal
import sys

import grpc
from google.api_core import exceptions
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery
from google.cloud.bigquery_storage_v1 import BigQueryWriteClient, types, writer
from google.cloud.bigquery_storage_v1.services.big_query_write.transports import BigQueryWriteGrpcTransport
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PROJECT = "py"
# Seconds that nothing takes on a machine that is not stuck.
PATIENCE = 120
TYPE = descriptor_pb2.FieldDescriptorProto
PARENT = f"projects/{PROJECT}/datasets/d/tables/payments"


def row_descriptor(change: bool) -> descriptor_pb2.DescriptorProto:
    """The message of a row, with the pseudo-columns of change data capture where they are wanted."""
    descriptor = descriptor_pb2.DescriptorProto(name="Payment")
    fields = [("id", TYPE.TYPE_INT64), ("sum", TYPE.TYPE_STRING), ("at", TYPE.TYPE_INT64)]
    if change:
        fields += [("_CHANGE_TYPE", TYPE.TYPE_STRING), ("_CHANGE_SEQUENCE_NUMBER", TYPE.TYPE_STRING)]
    for number, (name, kind) in enumerate(fields, start=1):
        descriptor.field.add(name=name, number=number, type=kind, label=TYPE.LABEL_OPTIONAL)
    return descriptor


def row_class(descriptor: descriptor_pb2.DescriptorProto, file_name: str):
    """The class of a message, made as protoc would make it."""
    pool = descriptor_pool.DescriptorPool()
    file = descriptor_pb2.FileDescriptorProto(name=file_name, syntax="proto2")
    file.message_type.add().CopyFrom(descriptor)
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("Payment"))


PLAIN = row_descriptor(change=False)
CHANGE = row_descriptor(change=True)
Payment = row_class(PLAIN, "payment.proto")
Change = row_class(CHANGE, "change.proto")


def payments(*ids: int) -> list[bytes]:
    at = 1_795_467_909_000_001
    return [Payment(id=number, sum="12.50", at=at).SerializeToString() for number in ids]


class Stream:
    """A stream with Google's own connection, which sends what it is given and answers with futures."""

    def __init__(self, client: BigQueryWriteClient, name: str, descriptor=PLAIN):
        template = types.AppendRowsRequest(write_stream=name)
        template.proto_rows = types.AppendRowsRequest.ProtoData(
            writer_schema=types.ProtoSchema(proto_descriptor=descriptor)
        )
        self.name = name
        self.connection = writer.AppendRowsStream(client, template)

    def append(self, rows: list[bytes], offset: int | None = None):
        request = types.AppendRowsRequest()
        if offset is not None:
            request.offset = offset
        data = types.AppendRowsRequest.ProtoData(rows=types.ProtoRows(serialized_rows=rows))
        request.proto_rows = data
        return self.connection.send(request)

    def close(self):
        self.connection.close()


def check(what: str, found, wanted) -> None:
    if found != wanted:
        sys.exit(f"{what}: found {found!r}, wanted {wanted!r}")
    print(f"ok: {what}")


def visible(client: bigquery.Client, table: str = "payments") -> list[int]:
    return sorted(row["id"] for row in client.query(f"SELECT * FROM `{PROJECT}.d.{table}`").result())


def create(client: BigQueryWriteClient, kind: types.WriteStream.Type) -> str:
    return client.create_write_stream(parent=PARENT, write_stream=types.WriteStream(type_=kind)).name


def rest(client: bigquery.Client) -> None:
    client.create_dataset("d")
    schema = [
        bigquery.SchemaField("id", "INTEGER", mode="REQUIRED"),
        bigquery.SchemaField("sum", "NUMERIC"),
        bigquery.SchemaField("at", "TIMESTAMP"),
    ]
    table = client.create_table(bigquery.Table(f"{PROJECT}.d.payments", schema=schema))
    check("the table's columns", [field.name for field in table.schema], ["id", "sum", "at"])
    keyed = bigquery.Table(f"{PROJECT}.d.keyed", schema=schema)
    keyed.table_constraints = bigquery.table.TableConstraints(
        primary_key=bigquery.table.PrimaryKey(columns=["id"]), foreign_keys=[]
    )
    client.create_table(keyed)
    found = client.get_table(f"{PROJECT}.d.keyed").table_constraints.primary_key.columns
    check("the primary key", list(found), ["id"])
    errors = client.insert_rows_json(table, [{"id": 1, "sum": "12.50", "at": "2026-11-23T21:05:09.000001Z"}])
    check("errors of insertAll", errors, [])
    errors = client.insert_rows_json(table, [{"id": 99}, {"id": "no number"}])
    check("reasons of a refused insertAll", [error["errors"][0]["reason"] for error in errors], ["stopped", "invalid"])
    row = next(iter(client.list_rows(table)))
    at = datetime.datetime(2026, 11, 23, 21, 5, 9, 1, tzinfo=datetime.timezone.utc)
    check("a row that is read back", tuple(row), (1, decimal.Decimal("12.5"), at))


def default_stream(client: bigquery.Client, write: BigQueryWriteClient) -> None:
    stream = Stream(write, f"{PARENT}/_default")
    futures = [stream.append(payments(number)) for number in range(2, 52)]
    for future in futures:
        future.result(timeout=PATIENCE)
    stream.close()
    check("rows of the default stream", visible(client), list(range(1, 52)))


def committed(client: bigquery.Client, write: BigQueryWriteClient) -> None:
    stream = Stream(write, create(write, types.WriteStream.Type.COMMITTED))
    first, second = stream.append(payments(52), offset=0), stream.append(payments(53), offset=1)
    check("offsets of a committed stream", [
        future.result(timeout=PATIENCE).append_result.offset for future in (first, second)
    ], [0, 1])
    check("rows of a committed stream", visible(client)[-2:], [52, 53])
    try:
        stream.append(payments(54), offset=1).result(timeout=PATIENCE)
        sys.exit("an offset that is taken was taken again")
    except exceptions.AlreadyExists:
        print("ok: an offset that is taken is refused")
    stream.close()
    check("rows at the end", write.finalize_write_stream(name=stream.name).row_count, 2)
    late = Stream(write, stream.name)
    try:
        late.append(payments(54), offset=2).result(timeout=PATIENCE)
        sys.exit("a finalized stream took rows")
    except exceptions.GoogleAPICallError as refused:
        check("the code of an append behind the end", refused.code, 400)


def buffered(client: bigquery.Client, write: BigQueryWriteClient) -> None:
    stream = Stream(write, create(write, types.WriteStream.Type.BUFFERED))
    for offset, number in enumerate(range(60, 70)):
        stream.append(payments(number), offset=offset).result(timeout=PATIENCE)
    check("rows before a flush", visible(client)[-1], 53)
    request = types.FlushRowsRequest(write_stream=stream.name, offset=4)
    check("the flushed offset", write.flush_rows(request).offset, 4)
    check("rows behind a flush", visible(client)[-5:], [60, 61, 62, 63, 64])
    try:
        write.flush_rows(types.FlushRowsRequest(write_stream=stream.name, offset=10))
        sys.exit("a flush beyond the end was taken")
    except exceptions.OutOfRange:
        print("ok: a flush beyond the end is refused")
    stream.close()
    check("rows of a buffered stream", write.finalize_write_stream(name=stream.name).row_count, 10)


def pending(client: bigquery.Client, write: BigQueryWriteClient) -> None:
    names = [create(write, types.WriteStream.Type.PENDING) for _ in range(2)]
    for number, name in enumerate(names, start=80):
        stream = Stream(write, name)
        stream.append(payments(number)).result(timeout=PATIENCE)
        stream.close()
        write.finalize_write_stream(name=name)
    check("rows before a commit", visible(client)[-1], 64)
    request = types.BatchCommitWriteStreamsRequest(parent=PARENT, write_streams=names)
    answer = write.batch_commit_write_streams(request)
    check("errors of a commit", list(answer.stream_errors), [])
    check("rows behind a commit", visible(client)[-2:], [80, 81])
    again = write.batch_commit_write_streams(request)
    check(
        "a commit that comes again",
        {error.code for error in again.stream_errors},
        {types.StorageError.StorageErrorCode.STREAM_ALREADY_COMMITTED},
    )


def row_errors(client: bigquery.Client, write: BigQueryWriteClient) -> None:
    stream = Stream(write, f"{PARENT}/streams/_default")
    bad = Payment(id=90, sum="not a number").SerializeToString()
    try:
        stream.append([*payments(91), bad]).result(timeout=PATIENCE)
        sys.exit("a bad row was taken")
    except exceptions.InvalidArgument:
        print("ok: a bad row is refused")
    stream.close()
    check("rows beside a bad row", visible(client)[-1], 81)


def changes(client: bigquery.Client, write: BigQueryWriteClient) -> None:
    stream = Stream(write, f"projects/{PROJECT}/datasets/d/tables/keyed/_default", CHANGE)

    def change(number: int, what: str, sequence: str) -> bytes:
        fields = {"id": number, "_CHANGE_TYPE": what, "_CHANGE_SEQUENCE_NUMBER": sequence}
        return Change(**fields).SerializeToString()

    stream.append([
        change(1, "UPSERT", "2"), change(2, "UPSERT", "1"), change(1, "UPSERT", "1"), change(2, "DELETE", "A/0"),
        change(3, "UPSERT", "1"), change(2, "UPSERT", "9/FF"),
    ]).result(timeout=PATIENCE)
    stream.close()
    check("rows of a keyed table", visible(client, "keyed"), [1, 3])


def main() -> None:
    address = sys.argv[1]
    options = {"api_endpoint": f"http://{address}"}
    client = bigquery.Client(project=PROJECT, credentials=AnonymousCredentials(), client_options=options)
    transport = BigQueryWriteGrpcTransport(channel=grpc.insecure_channel(address))
    write = BigQueryWriteClient(transport=transport)
    rest(client)
    default_stream(client, write)
    committed(client, write)
    buffered(client, write)
    pending(client, write)
    row_errors(client, write)
    changes(client, write)
    count = next(iter(client.query(f"SELECT COUNT(*) AS n FROM {PROJECT}.d.payments").result()))["n"]
    check("rows at the end of it all", count, 60)


if __name__ == "__main__":
    main()
