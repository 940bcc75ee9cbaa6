"""Prometheus's text format 0.0.4.

It is written here, and not by ``prometheus_client``: all numbers are counted elsewhere, so a client library would only
format them. The tests read the text with its parser.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from deployer.server.histogram import Histogram

TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True)
class Metric:
    """One metric: its name, its type, one sentence, and the names of its labels."""

    name: str
    type: Literal["counter", "gauge", "histogram"]
    means: str
    labels: tuple[str, ...] = ()


Samples = Mapping[tuple[str, ...], float | Histogram]
"""Values by the values of the labels."""


def text(found: Mapping[Metric, Samples]) -> str:
    """All metrics that have samples."""
    return "".join(f"{line}\n" for metric, samples in found.items() if samples for line in _lines(metric, samples))


def _lines(metric: Metric, samples: Samples) -> Iterator[str]:
    yield f"# HELP {metric.name} {metric.means}"
    yield f"# TYPE {metric.name} {metric.type}"
    for values, value in samples.items():
        labels = tuple(zip(metric.labels, values, strict=True))
        if isinstance(value, Histogram):
            number = 0
            for limit, number in value.cumulative:
                yield _line(f"{metric.name}_bucket", (*labels, ("le", _number(limit))), number)
            yield _line(f"{metric.name}_sum", labels, round(value.total, 6))
            yield _line(f"{metric.name}_count", labels, number)
        else:
            yield _line(metric.name, labels, value)


def _line(name: str, labels: tuple[tuple[str, str], ...], value: float) -> str:
    told = ",".join(f'{label}="{_quoted(text)}"' for label, text in labels)
    return f"{name}{{{told}}} {_number(value)}" if told else f"{name} {_number(value)}"


def _number(value: float) -> str:
    return "+Inf" if value == float("inf") else str(value)


def _quoted(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
