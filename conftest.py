"""For all tests: with REQUIRE_BROWSER=1, a browser test that was skipped counts as failed; after the moment
TESTS_UNTIL (seconds since 1970) no test begins."""

from __future__ import annotations

import os
import time

import pytest

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_OFFLINE"] = "1"

LATE = "no time was left for it (TESTS_UNTIL)"


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    if time.time() > float(os.environ.get("TESTS_UNTIL") or "inf"):
        pytest.skip(LATE)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item):
    report = (yield).get_result()
    skipped = report.skipped and not hasattr(report, "wasxfail") and LATE not in str(report.longrepr)
    if skipped and os.environ.get("REQUIRE_BROWSER") and item.get_closest_marker("browser"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, but REQUIRE_BROWSER is set: {report.longrepr}"
