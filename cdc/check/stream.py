"""The topic in Kafka: how long it keeps what, in how many copies, and in which order."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from cdc import topic
from cdc.check.finding import ADVICE, DELAYS, LOSES, Hit, Look, Site, finding
from cdc.config import Topic
from cdc.topic import Policy

SETUP = "run `cdc setup`"


@dataclasses.dataclass(frozen=True, slots=True)
class Facts:
    """The topic, None when there is none; `wanted` are its settings as `cdc setup` makes them."""

    name: str
    policy: Policy | None
    configured: Topic
    wanted: dict[str, str]

    def setting(self, name: str) -> str:
        """Return a setting as Kafka has it, "" where there is no topic."""
        return "" if self.policy is None else self.policy.settings.get(name, "")


def read(site: Site) -> Facts:
    config = site.config
    return Facts(config.topic, topic.policy(config), config.kafka.topic, topic.settings(config))


@finding("topic-absent", DELAYS, "The connector has nowhere to write.")
def absent(found: Facts) -> Iterator[Hit]:
    if found.policy is None:
        yield Hit(
            f"there is no topic {found.name}",
            f"{SETUP}; replicas that were filled from one of that name: `cdc bootstrap --overwrite`",
        )


@finding("topic-partitions", LOSES, "Across partitions the order of commits is lost.")
def partitions(found: Facts) -> Iterator[Hit]:
    if found.policy is not None and found.policy.partitions != 1:
        yield Hit(
            f"{found.name} has {found.policy.partitions} partitions",
            f"delete it or set another kafka.topic.name; {SETUP}, then `cdc bootstrap --overwrite`",
        )


@finding("topic-compacted", LOSES, "Compaction takes single events out of transactions.",
         at_start=True)  # fmt: skip
def compacted(found: Facts) -> Iterator[Hit]:
    policy = found.setting("cleanup.policy")
    if policy not in ("", "delete"):
        yield Hit(f"cleanup.policy is {policy}",
                  f"{SETUP}; if it was so for long, `cdc bootstrap --overwrite` each replica")  # fmt: skip


@finding("topic-retention", LOSES,
         "A replica that is down for longer than Kafka keeps the stream must be filled anew.")  # fmt: skip
def retention(found: Facts) -> Iterator[Hit]:
    for name in ("retention.ms", "retention.bytes"):
        value, wanted = found.setting(name), found.wanted[name]
        if value and int(value) != -1 and (int(wanted) == -1 or int(value) < int(wanted)):
            yield Hit(f"{name} is {value}, the configuration says {wanted}", SETUP)


@finding("topic-size", DELAYS, "A row whose change is larger stops the connector for all tables.")
def size(found: Facts) -> Iterator[Hit]:
    value, wanted = found.setting("max.message.bytes"), found.wanted["max.message.bytes"]
    if value and int(value) < int(wanted):
        yield Hit(f"max.message.bytes is {value}, the connector sends up to {wanted}", SETUP)


@finding("topic-copies", LOSES,
         "Losing a broker loses commits that the primary has forgotten already.")  # fmt: skip
def copies(found: Facts) -> Iterator[Hit]:
    wanted = found.configured.replication_factor
    if found.policy is not None and found.policy.copies < wanted:
        yield Hit(
            f"there are {found.policy.copies} copies of it, the configuration says {wanted}",
            f"kafka-reassign-partitions.sh with {wanted} brokers for partition 0 of {found.name}",
        )
    least = found.setting("min.insync.replicas")
    if least and int(least) < found.configured.min_insync_replicas:
        yield Hit(
            f"min.insync.replicas is {least}, the configuration says "
            f"{found.configured.min_insync_replicas}",
            SETUP,
        )


@finding("topic-unclean", LOSES,
         "A broker that lacks the last commits may become the leader: they are gone.")  # fmt: skip
def unclean(found: Facts) -> Iterator[Hit]:
    if found.setting("unclean.leader.election.enable") == "true":
        yield Hit(
            "unclean.leader.election.enable is true",
            f"kafka-configs.sh --alter --topic {found.name} --add-config "
            "unclean.leader.election.enable=false",
        )


@finding("topic-in-sync", DELAYS, "Kafka takes no record until enough copies are in step again.")
def in_sync(found: Facts) -> Iterator[Hit]:
    least = found.setting("min.insync.replicas")
    if found.policy is not None and least and found.policy.in_sync < int(least):
        yield Hit(f"{found.policy.in_sync} copies are in step, {least} are needed",
                  "start the brokers that are down")  # fmt: skip


@finding("topic-few-copies", ADVICE,
         "With fewer than three copies, two of them in step, losing a broker can lose commits.")  # fmt: skip
def few_copies(found: Facts) -> Iterator[Hit]:
    if found.configured.replication_factor < 3 or found.configured.min_insync_replicas < 2:
        yield Hit(
            f"kafka.topic.replication_factor is {found.configured.replication_factor}, "
            f"min_insync_replicas {found.configured.min_insync_replicas}",
            "with three brokers: replication_factor = 3, min_insync_replicas = 2",
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Brokers:
    """The brokers' own settings; `made_unasked`: a topic comes into being when it is asked about."""

    topic: str
    made_unasked: bool


def read_brokers(site: Site) -> Brokers:
    return Brokers(site.config.topic, topic.made_unasked(site.config))


@finding("topic-unasked", ADVICE,
         "Were the topic deleted, the connector would make another one with the brokers' defaults and "
         "go on: what it writes there the primary forgets, and every replica must be filled anew.")  # fmt: skip
def unasked(found: Brokers) -> Iterator[Hit]:
    if found.made_unasked:
        yield Hit(
            f"{topic.AUTO_CREATE} is true, so {found.topic} would come back by itself",
            f"{topic.AUTO_CREATE}=false in the settings of every broker, and restart them",
        )


LOOKS: tuple[Look[Any], ...] = (
    Look("kafka", "the topic", read,
         (absent, partitions, compacted, retention, size, copies, unclean, in_sync, few_copies)),
    Look("kafka", "the brokers", read_brokers, (unasked,)),
)  # fmt: skip
