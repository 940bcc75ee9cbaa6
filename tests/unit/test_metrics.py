"""The text for Prometheus, read by the parser of its own client library."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.metrics_core import Metric as Read
from prometheus_client.parser import text_string_to_metric_families

from deployer.certificates.authority import Authority
from deployer.commands.render import OF_MONITORING, _of_monitoring
from deployer.protocol import IndexCounts, MemberStatus, UpstreamCounts
from deployer.resources import templates_dir
from deployer.server.histogram import BOUNDS, Histogram
from deployer.server.nginx.certificate import expiry
from deployer.server.nginx.exposition import text
from deployer.server.nginx.latency import Latency
from deployer.server.nginx.metrics import METRICS, MOST_UPSTREAMS, Measured, UpstreamMeasured, samples
from deployer.server.nginx.own_process import OwnProcess
from deployer.server.upstream.health import Upstream

STRANGE = 'a"b\\c\n/d'
COUNTS: IndexCounts = {
    "requests": 1,
    "hits": 2,
    "misses": 3,
    "bytes_served": 4,
    "bytes_saved": 5,
    "refused": {"min_age": 6},
}
PAGE = {"method": "GET", "path": "/root/dev/+simple/demo/", "status": 200, "seconds": 0.003, "bytes": 9}
PAGE |= {"from": "page", "fetched": "", "kept": ""}


def exported(*lines: dict[str, Any], measured: Measured | None = None, upstreams: int = 1) -> dict[str, Read]:
    """What Prometheus would know after these lines of the access log, by the name of the metric."""
    latency = Latency()
    for line in lines:
        latency.line({**PAGE, **line})
    of_upstreams = {
        f"https://u{number}.example.com": UpstreamCounts(requests=number, failures=0, bytes=0, slowest=0.5)
        for number in range(upstreams)
    }
    told = text(
        samples(
            {"since": "", "indexes": {STRANGE: COUNTS}, "upstreams": of_upstreams},
            latency,
            measured,
            OwnProcess().values(),
        )
    )
    return {family.name: family for family in text_string_to_metric_families(told)}


def value(family: Read, suffix: str = "", **labels: str) -> float:
    (found,) = [
        one.value
        for one in family.samples
        if one.name == (family.name + suffix) and labels.items() <= one.labels.items()
    ]
    return float(found)


REPLICA = MemberStatus(
    number=1,
    role="replica",
    uuid="u",
    serial=4,
    primary_serial=5,
    lag_seconds=12.5,
    synced=False,
    files_in_sync=False,
    files_missing=3,
    errors=(),
    version="1",
    server_version="6.20",
    last_contact_seconds=0.5,
    primary_answers=True,
)
ALL = Measured(
    build=("1", "6.20", "nginx 1.22"),
    upstreams=(UpstreamMeasured(origin="https://u.example.com", requests=1, up=False, asking=2, seconds=Histogram()),),
    cache=(1, 2),
    quotas={"root/dev": {"used": 3, "limit": 4}},
    backup=1e9,
    certificate=2e9,
    member=REPLICA,
)


def test_all_metrics_are_read_with_their_type_and_their_help() -> None:
    found = exported({}, measured=ALL)
    for metric in METRICS:
        name = metric.name.removesuffix("_total") if metric.type == "counter" else metric.name
        assert (found[name].type, found[name].documentation) == (metric.type, metric.means)
        labels = {label for one in found[name].samples for label in one.labels} - {"le"}
        assert labels == set(metric.labels)
    assert len(found) == len(METRICS)


def test_a_member_tells_how_far_it_is() -> None:
    found = exported({}, measured=ALL)
    told = ("deployer_member_synced", "deployer_replica_lag_seconds", "deployer_replica_missing_files")
    assert [value(found[name]) for name in told] == [0, 12.5, 3]
    primary = replace(REPLICA, role="primary", synced=True, lag_seconds=0.0, files_missing=0)
    found = exported({}, measured=replace(ALL, member=primary))
    assert value(found[told[0]]) == 1
    assert told[1] not in found and told[2] not in found
    assert not set(told) & set(exported({}, measured=replace(ALL, member=None)))


def test_names_follow_the_convention() -> None:
    """https://prometheus.io/docs/practices/naming/"""
    for metric in METRICS:
        assert re.fullmatch(r"(deployer|process)(_[a-z]+)+", metric.name)
        assert metric.name.endswith("_total") == (metric.type == "counter")
        assert not re.search(r"milli|minutes|_mb|_kb|percent", metric.name)
        assert metric.means.endswith(".")
        if metric.type == "histogram":
            assert metric.name.endswith("_seconds")
    assert len({metric.name for metric in METRICS}) == len(METRICS)


def test_any_name_of_an_index_is_read_as_it_is() -> None:
    found = exported()
    assert value(found["deployer_misses"], "_total", index=STRANGE) == 3
    assert value(found["deployer_refused"], "_total", index=STRANGE, rule="min_age") == 6


def test_the_end_of_a_certificate_is_that_of_the_server_not_of_its_ca(tmp_path: Path) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    authority = Authority.made(["index.example.com"], now, title="test", valid=timedelta(days=100))
    stored = tmp_path / "tls.pem"
    stored.write_text("".join(authority.signed(["index.example.com"], now, valid=timedelta(days=30))))
    assert expiry(stored) == datetime(2026, 1, 31, tzinfo=UTC).timestamp()
    stored.write_text("-----BEGIN CERTIFICATE-----\n")
    assert expiry(stored) is None
    assert expiry(tmp_path / "absent") is None


@pytest.mark.parametrize(
    ("line", "kind", "source"),
    [
        ({}, "page", "nginx"),
        ({"from": "devpi", "kept": "1"}, "page", "store"),
        ({"from": "devpi"}, "page", "new"),
        ({"from": "devpi", "status": 404}, "page", "devpi"),
        ({"from": "file", "path": "/root/pypi/+f/000/0/x-1.whl"}, "file", "nginx"),
        ({"from": "devpi", "fetched": "no", "path": "/root/pypi/+f/000/0/x-1.whl"}, "file", "new"),
        ({"from": "devpi", "fetched": "no", "path": "/root/pypi/+canonical/hosts/a.example/x-1.whl"}, "file", "new"),
        ({"from": "devpi", "path": "/root/pypi/+f/000/0/x-1.whl"}, "file", "store"),
        ({"from": "devpi", "method": "POST", "path": "/root/dev"}, "write", "devpi"),
        ({"from": "devpi", "path": "/+api"}, "other", "devpi"),
    ],
)
def test_a_request_is_in_one_histogram(line: dict[str, Any], kind: str, source: str) -> None:
    family = exported(line)["deployer_request_duration_seconds"]
    assert {(one.labels["kind"], one.labels["source"]) for one in family.samples} == {(kind, source)}
    assert value(family, "_count") == 1
    assert value(family, "_sum") == 0.003
    assert value(family, "_bucket", le="0.001") == 0
    assert [value(family, "_bucket", le=limit) for limit in ("0.005", "60.0", "+Inf")] == [1, 1, 1]


def test_failed_requests_are_counted_and_not_timed() -> None:
    found = exported({"status": 502}, {"status": 499}, {"status": 404})
    assert value(found["deployer_request_duration_seconds"], "_count") == 1
    answers = found["deployer_responses"]
    assert {one.labels["code"]: one.value for one in answers.samples} == {"404": 1, "499": 1, "502": 1}


def test_a_duration_is_in_the_bucket_of_its_limit() -> None:
    histogram = Histogram()
    for seconds in (0.0, *BOUNDS, 61.0):
        histogram.observe(seconds)
    assert [count for _, count in histogram.cumulative] == [2, *range(3, len(BOUNDS) + 2), len(BOUNDS) + 2]
    assert histogram.copy() == histogram


def test_an_upstream_is_down_until_it_answers_again() -> None:
    now = [0.0]
    upstream = Upstream("https://u.example.com", lambda: now[0])
    assert not upstream.failing
    assert upstream.begin(1)
    upstream.failed(1)
    now[0] = 3600.0
    assert upstream.failing
    assert not upstream.down  # it may be asked again
    assert upstream.begin(2)
    now[0] += 0.3
    upstream.answered(2)
    assert not upstream.failing
    assert sum(upstream.seconds.counts) == 1
    assert upstream.seconds.total == pytest.approx(0.3)


def test_upstreams_are_bounded() -> None:
    """The hosts of files are what an upstream's pages name."""
    many = tuple(
        UpstreamMeasured(
            origin=f"https://u{number}.example.com", requests=number, up=True, asking=0, seconds=Histogram()
        )
        for number in range(300)
    )
    found = exported(measured=Measured(build=("", "", ""), upstreams=many), upstreams=300)
    for name in ("deployer_upstream_up", "deployer_upstream_requests"):
        listed = {one.labels["upstream"] for one in found[name].samples}
        assert len(listed) == MOST_UPSTREAMS
        assert "https://u299.example.com" in listed
        assert "https://u0.example.com" not in listed


# The shipped dashboard and rules


def expressions() -> Iterator[str]:
    """Every question to Prometheus in the dashboard and the rules."""
    directory = templates_dir() / "monitoring"
    dashboard = json.loads((directory / "grafana.json").read_text(encoding="utf-8"))
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["query"]["query"]
    for group in yaml.safe_load((directory / "alerts.yaml").read_text(encoding="utf-8"))["groups"]:
        for rule in group["rules"]:
            yield rule["expr"]


def test_dashboard_and_rules_use_metrics_and_labels_that_exist() -> None:
    named = {
        f"{metric.name}{suffix}": metric
        for metric in METRICS
        for suffix in (("_bucket", "_sum", "_count") if metric.type == "histogram" else ("",))
    }
    asked = list(expressions())
    assert len(asked) > 20
    for expression in asked:
        used = set(re.findall(r"\b(?:deployer|process)_\w+", expression))
        assert used <= named.keys(), expression
        labels = {label for name in used for label in named[name].labels} | {"le", "job", "instance"}
        for listed in re.findall(r"\bby \(([^)]*)\)", expression):
            assert {label.strip() for label in listed.split(",")} <= labels, expression
        for listed in re.findall(r"\{([^}]*)\}", expression):
            assert set(re.findall(r"(\w+) *[=!]", listed)) <= labels, expression


def test_each_panel_has_a_place_of_its_own() -> None:
    dashboard = json.loads((templates_dir() / "monitoring/grafana.json").read_text(encoding="utf-8"))
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def test_each_alert_says_what_to_do() -> None:
    rules = yaml.safe_load((templates_dir() / "monitoring/alerts.yaml").read_text(encoding="utf-8"))
    for group in rules["groups"]:
        for rule in group["rules"]:
            assert set(rule["annotations"]) == {"summary", "description"}
            assert "deployer" in rule["annotations"]["description"]
            assert rule["labels"]["severity"] in ("warning", "critical")


def test_the_files_are_printed_with_the_address_of_the_profile() -> None:
    for form in OF_MONITORING:
        made = _of_monitoring(form, "127.0.0.5:9555")
        assert not made.warnings
        assert ("127.0.0.5:9555" in made.text) == (form == "prometheus")
    assert "server.metrics" in _of_monitoring("alerts", "").warnings[0]
