"""The stream's topic in Kafka: one partition, never compacted, created and kept by `cdc setup`."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Node, TopicCollection
from confluent_kafka.admin import (
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ConfigSource,
    NewTopic,
    ResourceType,
)

from cdc import brokers as kafka
from cdc.brokers import Admin
from cdc.config import Config
from cdc.errors import NotReady, PositionLost

#: The brokers' setting by which topics come into being unasked.
AUTO_CREATE = "auto.create.topics.enable"

#: Seconds Kafka has to answer one administrative request.
TIMEOUT = 10.0

_ABSENT = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC)  # noqa: SLF001 -- the library's own spelling of a public code
_REFUSED = (
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
)


@dataclasses.dataclass(frozen=True, slots=True)
class TopicInfo:
    """A topic as Kafka has it; `topic_id` differs after the topic was deleted and made anew."""

    name: str
    topic_id: str
    partitions: int


def brokers(config: Config) -> int:
    """Return how many brokers the cluster has; raises as `describe` where Kafka does not say."""
    with _admin(config) as admin:
        return len(_nodes(admin))


def exists(config: Config) -> bool:
    """Tell whether there is such a topic; raises as `describe` where Kafka does not say."""
    with _admin(config) as admin:
        return _describe(admin, config) is not None


def describe(config: Config) -> TopicInfo:
    """Return the stream's topic as Kafka has it.

    Raises NotReady when it does not exist or is refused, Unreachable when Kafka does not answer.
    """
    with _admin(config) as admin:
        found = _describe(admin, config)
    if found is None:
        raise NotReady(
            f"the topic {config.topic} does not exist",
            safe="nothing was changed",
            next="run `cdc setup`; replicas that were filled from an earlier topic of that name must be "
            "filled anew then: `cdc bootstrap --overwrite`",
            topic=config.topic,
        )
    return found


@dataclasses.dataclass(frozen=True, slots=True)
class Policy:
    """How Kafka keeps the topic: `copies` of a partition and those of them `in_sync`, the least of all."""

    partitions: int
    copies: int
    in_sync: int
    settings: dict[str, str]


def policy(config: Config) -> Policy | None:
    """Read how Kafka keeps the stream's topic, None when there is none; raises as `describe`."""
    with _admin(config) as admin:
        answer = admin.describe_topics(TopicCollection([config.topic]), request_timeout=TIMEOUT)
        try:
            partitions = admin.answer(answer[config.topic]).partitions
        except KafkaException as error:
            if error.args[0].code() in _ABSENT:
                return None
            raise
        entries = _entries(admin, ConfigResource(ResourceType.TOPIC, config.topic))
    return Policy(
        len(partitions),
        min(len(p.replicas) for p in partitions),
        min(len(p.isr) for p in partitions),
        {name: str(entry.value) for name, entry in entries.items()},
    )


def made_unasked(config: Config) -> bool:
    """Tell whether the brokers make a topic that somebody asks about; raises as `describe`."""
    with _admin(config) as admin:
        broker = _nodes(admin)[0].id_string
        entries = _entries(admin, ConfigResource(ResourceType.BROKER, broker))
        return bool(entries[AUTO_CREATE].value == "true")


def settings(config: Config) -> dict[str, str]:
    """Return the topic's settings that the stream depends on, as Kafka prints them."""
    return {
        # Compaction would take single events out of transactions.
        "cleanup.policy": "delete",
        "retention.ms": str(round(config.kafka.topic.retention * 1000)),
        # The log is cut by age alone: a size limit would cut it without anybody counting days.
        "retention.bytes": "-1",
        "max.message.bytes": str(int(config.kafka.topic.max_message_bytes)),
        "min.insync.replicas": str(config.kafka.topic.min_insync_replicas),
    }


def ensure(config: Config) -> list[str]:
    """Create the topic or mend its settings; return one line per thing done or found.

    Raises PositionLost when the topic has more than one partition: order across partitions is
    lost and cannot be mended in place. NotReady when Kafka refuses, Unreachable when it is silent.
    """
    wanted = settings(config)
    with _admin(config) as admin:
        found = _describe(admin, config)
        if found is None:
            _create(admin, config, wanted)
            return [f"topic {config.topic}: created"]
        if found.partitions != 1:
            raise PositionLost(
                f"the topic {config.topic} has {found.partitions} partitions; it must have one, "
                "because only one partition keeps the order of commits",
                safe="nothing was changed; what replicas hold is not touched",
                next="delete the topic (what replicas have not read yet is lost with it) or set "
                "another kafka.topic.name, run `cdc setup`, then `cdc bootstrap` each replica",
                topic=config.topic,
                partition=found.partitions - 1,
            )
        drift = _drift(admin, config, wanted)
        if not drift:
            return [f"topic {config.topic}: already there"]
        _alter(admin, config, {name: wanted[name] for name in drift})
        return [
            f"topic {config.topic}: {name} was {was}, now {wanted[name]}"
            for name, was in drift.items()
        ]


def delete(config: Config) -> bool:
    """Delete the topic with everything in it; return False when there was none."""
    with _admin(config) as admin:
        if _describe(admin, config) is None:
            return False
        admin.answer(admin.delete_topics([config.topic], request_timeout=TIMEOUT)[config.topic])
    return True


def forget_group(config: Config, group: str) -> bool:
    """Delete a consumer group's offsets; return False when there is no such group."""
    with _admin(config) as admin:
        try:
            admin.answer(admin.delete_consumer_groups([group], request_timeout=TIMEOUT)[group])
        except KafkaException as error:
            if error.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND:
                return False
            raise
    return True


@contextlib.contextmanager
def _admin(config: Config) -> Iterator[Admin]:
    """Give an administrative client; turn its errors into ours."""
    admin = Admin(config)
    try:
        yield admin
    except KafkaException as error:
        cause = error.args[0]
        if cause.code() in _REFUSED:
            raise NotReady(
                f"Kafka at {config.kafka.bootstrap_servers} refuses us: {cause.str()}",
                safe="nothing was changed",
                next="allow describe, create and alter-configs on the topic to whom kafka.options "
                "names",
                topic=config.topic,
            ) from error
        admin.poll(0)
        raise kafka.unreachable(config, admin.said, cause.str()) from error


def _describe(admin: Admin, config: Config) -> TopicInfo | None:
    answer = admin.describe_topics(TopicCollection([config.topic]), request_timeout=TIMEOUT)
    try:
        topic = admin.answer(answer[config.topic])
    except KafkaException as error:
        if error.args[0].code() in _ABSENT:
            return None
        raise
    return TopicInfo(topic.name, str(topic.topic_id), len(topic.partitions))


def _create(admin: Admin, config: Config, wanted: dict[str, str]) -> None:
    new = NewTopic(
        config.topic,
        num_partitions=1,
        replication_factor=config.kafka.topic.replication_factor,
        config=wanted,
    )
    try:
        admin.answer(admin.create_topics([new], request_timeout=TIMEOUT)[config.topic])
    except KafkaException as error:
        cause = error.args[0]
        if cause.code() == KafkaError.TOPIC_ALREADY_EXISTS:
            return
        if cause.code() in (KafkaError.INVALID_REPLICATION_FACTOR, KafkaError.INVALID_CONFIG):
            raise NotReady(
                f"Kafka refuses to create the topic {config.topic}: {cause.str()}",
                safe="nothing was changed",
                next="set kafka.topic.replication_factor and min_insync_replicas to what this "
                "cluster has brokers for",
                topic=config.topic,
            ) from error
        raise


def _drift(admin: Admin, config: Config, wanted: dict[str, str]) -> dict[str, str]:
    """Return the settings that differ from `wanted`, with the value found."""
    entries = _entries(admin, ConfigResource(ResourceType.TOPIC, config.topic))
    return {
        name: str(entries[name].value) if name in entries else "unknown"
        for name, value in wanted.items()
        if name not in entries or entries[name].value != value or _inherited(entries[name])
    }


def _nodes(admin: Admin) -> list[Node]:
    """Return the brokers of the cluster, of which one answered."""
    return list(admin.answer(admin.describe_cluster(request_timeout=TIMEOUT)).nodes)


def _entries(admin: Admin, resource: ConfigResource) -> dict[str, ConfigEntry]:
    answer = admin.describe_configs([resource], request_timeout=TIMEOUT)
    return dict(admin.answer(answer[resource]))


def _inherited(entry: Any) -> bool:
    """Tell whether a setting comes from the broker, where it may change under us."""
    return bool(entry.source != ConfigSource.DYNAMIC_TOPIC_CONFIG.value)


def _alter(admin: Admin, config: Config, values: dict[str, str]) -> None:
    resource = ConfigResource(
        ResourceType.TOPIC,
        config.topic,
        incremental_configs=[
            ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
            for name, value in values.items()
        ],
    )
    admin.answer(admin.incremental_alter_configs([resource], request_timeout=TIMEOUT)[resource])
