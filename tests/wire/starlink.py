"""A dish: a real gRPC server with server reflection and the schema that Starlink's dishes tell of themselves.

Of that schema it has the names, numbers and files that a status is made of, and a few more.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import Any, cast

grpc: Any = import_module("grpc")  # none of these has type stubs
reflection: Any = import_module("grpc_reflection.v1alpha.reflection")
descriptors: Any = import_module("google.protobuf.descriptor_pb2")
pools: Any = import_module("google.protobuf.descriptor_pool")
factory: Any = import_module("google.protobuf.message_factory")

DEVICE = "SpaceX.API.Device"
SERVICE = f"{DEVICE}.Device"
KINDS = {"bool": 8, "float": 2, "int64": 3, "uint64": 4, "string": 9, "int32": 5}
CAUSES = (
    "UNKNOWN", "BOOTING", "STOWED", "THERMAL_SHUTDOWN", "NO_SCHEDULE", "NO_SATS", "OBSTRUCTED",
    "NO_DOWNLINK", "NO_PINGS", "ACTUATOR_ACTIVITY", "CABLE_TEST", "SLEEPING", "MOVING_WHILE_NOT_ALLOWED",
)  # fmt: skip
MESSAGES: dict[str, dict[str, dict[str, tuple[int, str]]]] = {
    "spacex/api/common/status/status.proto": {
        ".SpaceX.API.Status.Status": {"code": (1, "int32"), "message": (2, "string")},
    },
    "spacex/api/device/dish.proto": {
        f".{DEVICE}.DishAlerts": {
            "motors_stuck": (1, "bool"), "thermal_shutdown": (2, "bool"), "thermal_throttle": (3, "bool"),
            "slow_ethernet_speeds": (6, "bool"), "roaming": (7, "bool"), "is_heating": (9, "bool"),
        },
        f".{DEVICE}.DishOutage": {
            "cause": (1, f"enum .{DEVICE}.DishOutage.Cause"), "start_timestamp_ns": (2, "int64"),
            "duration_ns": (3, "uint64"), "did_switch": (4, "bool"),
        },
        f".{DEVICE}.DishObstructionStats": {
            "fraction_obstructed": (1, "float"), "valid_s": (4, "float"), "currently_obstructed": (5, "bool"),
        },
        f".{DEVICE}.DishGetStatusResponse": {
            "seconds_to_first_nonempty_slot": (1002, "float"), "pop_ping_drop_rate": (1003, "float"),
            "obstruction_stats": (1004, f".{DEVICE}.DishObstructionStats"),
            "alerts": (1005, f".{DEVICE}.DishAlerts"), "downlink_throughput_bps": (1007, "float"),
            "uplink_throughput_bps": (1008, "float"), "pop_ping_latency_ms": (1009, "float"),
            "outage": (1014, f".{DEVICE}.DishOutage"),
            "disablement_code": (1024, "enum .SpaceX.API.Satellites.Network.UtDisablementCode"),
        },
    },
    "spacex/api/device/device.proto": {
        f".{DEVICE}.GetStatusRequest": {},
        f".{DEVICE}.Request": {"id": (1, "uint64"), "get_status": (1004, f".{DEVICE}.GetStatusRequest")},
        f".{DEVICE}.Response": {
            "id": (1, "uint64"), "status": (2, ".SpaceX.API.Status.Status"),
            "dish_get_status": (2004, f".{DEVICE}.DishGetStatusResponse"),
        },
    },
    "spacex/api/satellites/network/ut_disablement_codes.proto": {},
}  # fmt: skip
NEEDS = {
    "spacex/api/device/dish.proto": ["spacex/api/satellites/network/ut_disablement_codes.proto"],
    "spacex/api/device/device.proto": [
        "spacex/api/common/status/status.proto",
        "spacex/api/device/dish.proto",
    ],
}
ENUMS = {
    "spacex/api/satellites/network/ut_disablement_codes.proto": {
        ".SpaceX.API.Satellites.Network.UtDisablementCode": {
            "UNKNOWN_STATE": 0, "OKAY": 1, "NO_ACTIVE_ACCOUNT": 2, "DATA_OVERAGE_SANDBOX_POLICY": 7,
        },
    },
}  # fmt: skip


def files(shift: int = 0) -> list[Any]:
    """Return the schema's files; with ``shift`` the status' fields have numbers so much higher."""
    made: list[Any] = []
    for name in sorted(MESSAGES, key=lambda one: (one in NEEDS, len(NEEDS.get(one, ())))):
        file = descriptors.FileDescriptorProto(name=name, syntax="proto3", dependency=NEEDS.get(name, []))
        for message, fields in MESSAGES[name].items():
            file.package, _, short = message[1:].rpartition(".")
            made_message = file.message_type.add(name=short)
            for field, (number, kind) in fields.items():
                moved = number + (shift if short == "DishGetStatusResponse" else 0)
                _add_field(made_message, field, moved, kind)
            if short == "DishOutage":
                causes = made_message.enum_type.add(name="Cause")
                for value, cause in enumerate(CAUSES):
                    causes.value.add(name=cause, number=value)
        for enum, values in ENUMS.get(name, {}).items():
            file.package, _, short = enum[1:].rpartition(".")
            made_enum = file.enum_type.add(name=short)
            for word, value in values.items():
                made_enum.value.add(name=word, number=value)
        if name.endswith("device.proto"):
            file.service.add(name="Device").method.add(
                name="Handle", input_type=f".{DEVICE}.Request", output_type=f".{DEVICE}.Response"
            )
        made.append(file)
    return made


def _add_field(message: Any, name: str, number: int, kind: str) -> None:  # noqa: ANN401 - no stubs
    word, _, enum = kind.partition(" ")
    code = KINDS.get(word, 14 if enum else 11)
    field = message.field.add(name=name, number=number, label=1, type=code)
    if code not in KINDS.values():
        field.type_name = enum or kind


class DishServer:
    """A dish at ``127.0.0.1:port``; ``says`` is what it answers, field by field of its status."""

    def __init__(self, *, shift: int = 0, reflects: bool = True) -> None:
        self.pool = pools.DescriptorPool()
        for file in files(shift):
            self.pool.Add(file)
        self._request, self._response = (self._kind(name) for name in ("Request", "Response"))
        self.says: dict[str, Any] = {}
        self.asked = 0
        self._server = grpc.server(ThreadPoolExecutor(4))
        handler = grpc.unary_unary_rpc_method_handler(
            self._handle, request_deserializer=self._request.FromString,
            response_serializer=self._response.SerializeToString,
        )  # fmt: skip
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(SERVICE, {"Handle": handler}),)
        )
        if reflects:
            reflection.enable_server_reflection([SERVICE], self._server, self.pool)
        self.port = int(self._server.add_insecure_port("127.0.0.1:0"))
        self._server.start()

    def close(self) -> None:
        """Go."""
        self._server.stop(None).wait(10)

    def answer(self) -> bytes:
        """Return what it answers, encoded."""
        response = self._response(id=7)
        status = response.dish_get_status
        status.SetInParent()
        for name, value in self.says.items():
            if isinstance(value, dict):
                getattr(status, name).SetInParent()
                for inner, said in cast("dict[str, Any]", value).items():
                    setattr(getattr(status, name), inner, said)
            else:
                setattr(status, name, value)
        encoded: bytes = response.SerializeToString()
        return encoded

    def _handle(self, request: Any, context: Any) -> Any:  # noqa: ANN401 - no stubs
        if not request.HasField("get_status"):
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "only a status can be asked for")
        self.asked += 1
        return self._response.FromString(self.answer())

    def _kind(self, name: str) -> Any:  # noqa: ANN401 - no stubs
        return factory.GetMessageClass(self.pool.FindMessageTypeByName(f"{DEVICE}.{name}"))
