"""dstore's gRPC service from Python, without its .proto files: messages and methods come by reflection."""

import os
import sys
import threading

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

SERVICE = "dstore.v1.Store"
DEADLINE = 60


class Store:
    """The methods of the service, each by its name."""

    def __init__(self, at):
        self.channel = grpc.insecure_channel(at)
        reflected = ProtoReflectionDescriptorDatabase(self.channel)
        assert SERVICE in reflected.get_services(), reflected.get_services()
        self.pool = DescriptorPool(reflected)
        self.service = self.pool.FindServiceByName(SERVICE)

    def message(self, name, /, **fields):
        return GetMessageClass(self.pool.FindMessageTypeByName("dstore.v1." + name))(**fields)

    def call(self, method, request):
        described = self.service.methods_by_name[method]
        kinds = {(False, False): "unary_unary", (False, True): "unary_stream", (True, False): "stream_unary"}
        make = getattr(self.channel, kinds[described.client_streaming, described.server_streaming])
        answer = GetMessageClass(described.output_type)
        called = make(
            f"/{SERVICE}/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=answer.FromString,
        )
        return called(request, timeout=DEADLINE)

    def name(self, key):
        return self.message("Name", namespace="default", key=key)

    def target(self, key):
        return self.message("GetRequest", target=self.message("Target", name=self.name(key)))

    def get(self, key):
        return self.call("Get", self.target(key))

    def set(self, key, value):
        return self.call("Set", self.message("SetRequest", name=self.name(key), data=value))

    def delete(self, *keys):
        return self.call("Delete", self.message("DeleteRequest", names=[self.name(key) for key in keys]))

    def upload(self, key, value, piece=200_000):
        def chunks():
            header = self.message("UploadHeader", name=self.name(key), size=len(value))
            yield self.message("UploadChunk", header=header)
            for at in range(0, len(value), piece):
                yield self.message("UploadChunk", data=value[at : at + piece])

        return self.call("Upload", chunks())

    def download(self, key):
        chunks = list(self.call("Download", self.target(key)))
        assert chunks[0].header.found
        return b"".join(chunk.data for chunk in chunks)


def code_of(what):
    try:
        what()
    except grpc.RpcError as e:
        return e.code()
    return grpc.StatusCode.OK


def main(node, other):
    here, there = Store(node), Store(other)
    run = os.urandom(8).hex().encode()
    key = lambda name: b"py\0" + run + b"/" + name
    checks = 0

    def check(got, wanted, what):
        nonlocal checks
        assert got == wanted, f"{what}: wanted {wanted!r}, got {got!r}"
        checks += 1

    health = health_pb2_grpc.HealthStub(here.channel).Check(health_pb2.HealthCheckRequest(service=SERVICE), timeout=DEADLINE)
    check(health.status, health_pb2.HealthCheckResponse.SERVING, "health")
    result = here.pool.FindEnumTypeByName("dstore.v1.SetResult").values_by_name
    for name, size in [(b"empty", 0), (b"small", 100), (b"carried", 65_536), (b"large", 700_000)]:
        value = os.urandom(size)
        check(here.set(key(name), value).result, result["SET_RESULT_STORED"].number, "a new name")
        check(there.set(key(name), value).result, result["SET_RESULT_UNCHANGED"].number, "the same bytes again")
        check(there.set(key(name), value + b"x").result, result["SET_RESULT_OCCUPIED"].number, "other bytes")
        check(there.get(key(name)).data, value, "a value at the other node")
    value = os.urandom(5_000_000)
    check(here.upload(key(b"huge"), value).entry.size, len(value), "an upload")
    check(there.download(key(b"huge")) == value, True, "a download at the other node")
    check(code_of(lambda: there.get(key(b"huge"))), grpc.StatusCode.OUT_OF_RANGE, "too much for one message")
    check(code_of(lambda: there.get(b"")), grpc.StatusCode.INVALID_ARGUMENT, "no key")

    # A watch at the other node sees what happens at this one, from a revision on.
    revision = here.call("Status", here.message("StatusRequest")).revision
    prefix = key(b"w")
    watch = there.call("Watch", there.message("WatchRequest", namespace="default", prefix=prefix, after=revision))
    keys = [prefix + bytes([i]) for i in range(3)]
    threading.Thread(target=lambda: [here.set(k, b"v") for k in keys] + [here.delete(*keys)]).start()
    events = []
    for batch in watch:
        events += [(event.key, event.kind) for event in batch.events]
        if len(events) == 6:
            break
    watch.cancel()
    check(sorted(events), sorted([(k, kind) for k in keys for kind in (1, 2)]), "events")

    listed = here.call("List", here.message("ListRequest", namespace="default", prefix=key(b""), limit=2))
    check([listing.key for listing in listed.names], sorted([key(b"carried"), key(b"empty")]), "a page")
    many = there.call("GetMany", there.message("GetManyRequest", names=[there.name(key(b"small")), there.name(key(b"none"))]))
    check([piece.header.found for chunk in many for piece in chunk.pieces if piece.HasField("header")], [True, False], "many")
    check(list(here.delete(key(b"small"), key(b"none")).removed), [True, False], "a delete")
    check(there.get(key(b"small")).found, False, "what was deleted at the other node")
    print(f"grpcio {grpc.__version__}: {checks} checks, by reflection")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
