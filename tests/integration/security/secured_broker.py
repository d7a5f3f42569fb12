"""One embedded Kafka broker that asks who you are: TLS, SCRAM, client certificates, ACLs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # public, but not marked so
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from tests.integration.security.certificates import Authority, Issued
from tests.waiting import wait_until

from gatebook.engines import jars, kafka, processes
from gatebook.engines.processes import free_ports
from gatebook.engines.progress import Quiet
from gatebook.engines.settings import EngineSettings

SCRAM_LOGIN = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
LISTENERS = ("TLS", "SCRAM", "MTLS", "ELSEWHERE", "EXPIRED", "CONTROLLER")
ANONYMOUS = "ANONYMOUS"  # whom the broker sees where it asks for no name
REAUTHENTICATION_MS = 2000
ADMIN_SECONDS = 30.0
# A user each, with what it has to prove itself.
PASSWORDS = {"shipper": "ship-4711-secret", "worker": "work-0815-secret"}


class SecuredBroker:
    """Running on loopback, each listener on a port of its own. User `operator` (a client
    certificate) may do everything; others only what `grant` gives them."""

    def __init__(self, home: Path) -> None:
        self._folder = home / "certificates"
        self._folder.mkdir(parents=True)
        self.authority = Authority(self._folder, "authority")
        self.stranger = Authority(self._folder, "stranger")
        self._ports = dict(zip(LISTENERS, free_ports(len(LISTENERS)), strict=True))
        self._operator = self.authority.issue("operator")
        self.settings = EngineSettings(
            home=home,
            cache_dir=EngineSettings.from_environment().cache_dir,
            kafka_port=self._ports["MTLS"],
            kafka_controller_port=self._ports["CONTROLLER"],
            kafka_heap_mib=256,
        )
        jars.fetch([jars.read_lock().groups["kafka"]], self.settings.cache_dir,
                   EngineSettings.from_environment().maven_repository, Quiet())  # fmt: skip
        self._record = kafka.start(self.settings, self._properties(), _scram_arguments())
        self.admin = AdminClient(
            {
                "bootstrap.servers": self.at("MTLS"),
                "log_level": 0,
                **self.as_client("MTLS", self._operator),
            }
        )
        wait_until("the secured broker", self._answers, self.settings.start_timeout_seconds)

    def close(self) -> None:
        processes.stop(self._record, self.settings.stop_timeout_seconds)

    def at(self, listener: str) -> str:
        """host:port of a listener."""
        return f"127.0.0.1:{self._ports[listener]}"

    def as_client(self, listener: str, issued: Issued | None = None) -> dict[str, str]:
        """librdkafka's properties for a listener, but for what names a SCRAM user."""
        found = {
            "security.protocol": "SASL_SSL" if listener == "SCRAM" else "SSL",
            "ssl.ca.location": str(self.authority.file),
        }
        if issued is not None:
            found["ssl.certificate.location"] = str(issued.certificate)
            found["ssl.key.location"] = str(issued.key)
        return found

    def as_operator(self) -> dict[str, str]:
        """librdkafka's properties for listener MTLS and the user who may do everything."""
        return self.as_client("MTLS", self._operator)

    def as_user(self, name: str, password: str = "") -> dict[str, str]:
        """librdkafka's properties for a SCRAM user."""
        return {
            **self.as_client("SCRAM"),
            "sasl.mechanism": "SCRAM-SHA-512",
            "sasl.username": name,
            "sasl.password": password or PASSWORDS[name],
        }

    def create_topic(self, topic: str) -> None:
        self.admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(ADMIN_SECONDS)

    def read(self, topic: str) -> list[bytes]:
        """Every message that is on a topic of one partition now."""
        login = self.as_operator()
        reader = Consumer({"bootstrap.servers": self.at("MTLS"), "group.id": "read", **login})
        try:
            first = TopicPartition(topic, 0, 0)
            _, end = reader.get_watermark_offsets(first, timeout=ADMIN_SECONDS)
            reader.assign([first])
            values: list[bytes] = []
            while len(values) < end:
                found = reader.consume(end - len(values), timeout=ADMIN_SECONDS)
                assert found, f"{len(values)} of {end} messages"
                values += [message.value() or b"" for message in found]
            return values
        finally:
            reader.close()

    def grant(self, user: str, topic: str, operation: str = "WRITE") -> None:
        """Allow one operation on one topic; returns when the broker says so."""
        self.allow(user, ResourceType.TOPIC, topic, operation)

    def allow(self, user: str, kind: ResourceType, name: str, operation: str) -> None:
        """Allow an operation on everything whose name begins with `name`."""
        binding = AclBinding(
            kind, name, ResourcePatternType.PREFIXED, f"User:{user}", "*",
            AclOperation[operation], AclPermissionType.ALLOW,
        )  # fmt: skip
        for future in self.admin.create_acls([binding]).values():
            future.result(ADMIN_SECONDS)

    def deny_all(self, user: str) -> None:
        """Take back what was granted."""
        any_one: Any = None  # typed as str, and None is what matches all
        every = AclBindingFilter(
            ResourceType.ANY, any_one, ResourcePatternType.ANY, f"User:{user}", any_one,
            AclOperation.ANY, AclPermissionType.ANY,
        )  # fmt: skip
        for future in self.admin.delete_acls([every]).values():
            future.result(ADMIN_SECONDS)

    def set_password(self, user: str, password: str) -> None:
        """A new password; the old one opens nothing any more."""
        new = UserScramCredentialUpsertion(
            user, ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096), password.encode()
        )
        for future in self.admin.alter_user_scram_credentials([new]).values():
            future.result(ADMIN_SECONDS)

    def certify(self, listener: str, expired: bool) -> None:
        """Give a listener another certificate of the same name, without a restart."""
        store = self.authority.issue(listener.lower(), expired=expired).store
        name = f"listener.name.{listener.lower()}.ssl.keystore.location"
        entry = ConfigEntry(name, str(store), incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ResourceType.BROKER, "1", incremental_configs=[entry])
        for future in self.admin.incremental_alter_configs([resource]).values():
            future.result(ADMIN_SECONDS)

    def _answers(self) -> bool:
        assert processes.alive(self._record), Path(self._record.log).read_text()[-2000:]
        login = self.as_operator()
        return kafka.metadata_topics(self.at("MTLS"), login, 2) is not None

    def _properties(self) -> dict[str, str]:
        clients = [name for name in LISTENERS if name != "CONTROLLER"]
        return {
            "listeners": ",".join(f"{name}://{self.at(name)}" for name in LISTENERS),
            "advertised.listeners": ",".join(f"{name}://{self.at(name)}" for name in clients),
            "listener.security.protocol.map": ",".join(
                f"{name}:{'SASL_SSL' if name == 'SCRAM' else 'SSL'}" for name in LISTENERS
            ),
            "inter.broker.listener.name": "MTLS",
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:operator;User:broker",
            "ssl.principal.mapping.rules": "RULE:^CN=([^,]+).*$/$1/",
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.authority.file),
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(self.authority.issue("broker").store),
            "listener.name.mtls.ssl.client.auth": "required",
            "listener.name.controller.ssl.client.auth": "required",
            "listener.name.scram.sasl.enabled.mechanisms": "SCRAM-SHA-512",
            "listener.name.scram.scram-sha-512.sasl.jaas.config": SCRAM_LOGIN,
            # A client proves itself anew this often, so that a password's end is noticed.
            "listener.name.scram.connections.max.reauth.ms": str(REAUTHENTICATION_MS),
            **_own_store("elsewhere", self.authority.issue("elsewhere", ["kafka.example.test"])),
            **_own_store("expired", self.authority.issue("expired", expired=True)),
        }


def _own_store(listener: str, issued: Issued) -> dict[str, str]:
    return {
        f"listener.name.{listener}.ssl.keystore.type": "PEM",
        f"listener.name.{listener}.ssl.keystore.location": str(issued.store),
    }


def _scram_arguments() -> list[str]:
    return [
        part
        for name, password in PASSWORDS.items()
        for part in ("--add-scram", f"SCRAM-SHA-512=[name={name},password={password}]")
    ]
