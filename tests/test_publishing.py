"""The checks before publishing complain of planted faults, and of nothing else."""

from __future__ import annotations

import email.message
import io
import json
import tarfile
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from publishing import advisories, releasing
from publishing.archives import Archive, read
from publishing.checks import builds, changelogs, contents, licences, metadata, ranges, readmes
from publishing.checks.licences import Licensed
from publishing.compatibility import cores, drivers, page
from publishing.compatibility.cores import Core
from publishing.compatibility.running import Outcome, outcome_of
from publishing.compatibility.suites import SUITES, Suite
from publishing.packages import (
    ROOT,
    Package,
    in_order,
    named,
    needed_by,
    packages,
    version_in,
    with_version,
)
from publishing.report import Said, succeeded, summary


def package(name: str = "procrastinate-tiny", version: str = "4.0.0", *asks: str) -> Package:
    return Package("tiny", name, version, tuple(map(Requirement, asks)), {})


# --- The packages ---


def test_the_packages_are_all_folders_below_packages_each_after_those_that_it_needs() -> None:
    found = packages()
    assert {each.folder for each in found} == {each.name for each in ROOT.glob("packages/*/")}
    names = [each.name for each in found]
    for index, each in enumerate(found):
        assert {one.name for one in needed_by(each, found)} <= {*names[:index]}


def test_what_is_needed_comes_first_also_if_an_extra_needs_it() -> None:
    first, second, third = package("a"), package("b", "4.0.0", "a>=4,<5"), package("c")
    third = replace(third, extras={"x": (Requirement("b>=4,<5"),)})
    assert in_order([third, second, first]) == ["a", "b", "c"]
    assert needed_by(third, [first, second, third]) == [second, first]


def test_an_unknown_package_is_answered_with_those_that_there_are() -> None:
    with pytest.raises(LookupError, match="there is no package 'tiny'; there are procrastinate, "):
        named("tiny")


# --- What a package says of itself ---


def described(**changes: str | None) -> email.message.Message:
    """Return good metadata, less what is changed to None."""
    said = email.message.Message()
    fields = {
        "Name": "procrastinate-tiny",
        "Version": "4.0.0",
        "Summary": "A package that is here to be checked",
        "Requires-Python": metadata.PYTHON,
        "License-Expression": metadata.LICENCE,
        "License-File": "LICENSE",
        "Keywords": "queue",
        "Description-Content-Type": "text/markdown",
        **changes,
    }
    for field, value in fields.items():
        if value is not None:
            said[field] = value
    for each in metadata.CLASSIFIERS:
        said["Classifier"] = each
    for label, url in metadata.urls("tiny").items():
        said["Project-URL"] = f"{label}, {url}"
    said.set_payload("# procrastinate-tiny\n")
    return said


def complaints_about(said: email.message.Message) -> list[str]:
    return metadata.complaints(said, "procrastinate-tiny", "4.0.0", "tiny")


def test_good_metadata_passes() -> None:
    assert complaints_about(described()) == []


@pytest.mark.parametrize(
    "field, value, complaint",
    [
        ("Version", "4.0.1", "Version is '4.0.1', not '4.0.0'"),
        ("License-Expression", None, "License-Expression is None, not 'MIT'"),
        ("License-File", None, "License-File is None, not 'LICENSE'"),
        ("Requires-Python", ">=3.10", "Requires-Python is '>=3.10', not '>=3.11'"),
        ("Keywords", None, "has no keywords"),
        ("Summary", "Jobs", "its summary has 4 characters, not 21 to 512"),
    ],
)
def test_a_field_that_is_missing_or_wrong_is_a_complaint(
    field: str, value: str | None, complaint: str
) -> None:
    said = described(**{field: value})
    assert complaints_about(said) == [f"procrastinate-tiny: {complaint}"]


def test_a_url_that_is_missing_or_of_another_package_is_a_complaint() -> None:
    said = described()
    del said["Project-URL"]
    urls = metadata.urls("core")
    for label in ("Homepage", "Documentation", "Source", "Issues"):
        said["Project-URL"] = f"{label}, {urls[label]}"
    expected = metadata.urls("tiny")
    assert complaints_about(said) == [
        f"procrastinate-tiny: the URL Changelog is None, not {expected['Changelog']!r}",
        f"procrastinate-tiny: the URL Source is {urls['Source']!r}, not {expected['Source']!r}",
    ]


def test_a_missing_classifier_is_a_complaint() -> None:
    said = described()
    del said["Classifier"]
    for each in metadata.CLASSIFIERS - {"Typing :: Typed"}:
        said["Classifier"] = each
    said["Classifier"] = of_licence = "License :: OSI Approved :: MIT License"
    assert complaints_about(said) == [
        "procrastinate-tiny: the classifier 'Typing :: Typed' is missing",
        f"procrastinate-tiny: the classifier {of_licence!r} stands beside a licence expression",
    ]


def test_links_into_the_repository_are_complaints_but_not_those_in_code() -> None:
    text = """\
[site](https://a.example/b) [part](#part) ![picture](docs/a.png) [page](../../docs/b.md)
`[code](x.md)`

```md
[code](y.md)
```

[reference]: c.md
<img src="d.png"> <a href='mailto:a@b.example'>
"""
    found = [each.split("'")[1] for each in readmes.complaints("a", text)]
    assert found == ["docs/a.png", "../../docs/b.md", "c.md", "d.png"]


# --- Files ---

TINY = "procrastinate_tiny"
INFO = f"{TINY}-4.0.0.dist-info"
FILES = {f"src/{TINY}/__init__.py", f"src/{TINY}/py.typed", "README.md", "tests/test_a.py"}
GOOD: Mapping[str, bytes] = {
    f"{TINY}/__init__.py": b"",
    f"{TINY}/py.typed": b"",
    f"{INFO}/METADATA": b"Name: procrastinate-tiny\n",
    f"{INFO}/licenses/LICENSE": b"MIT",
    f"{INFO}/entry_points.txt": f"[procrastinate.connectors]\ntiny = {TINY}:Tiny\n".encode(),
}


def wheel(without: str = "", **more: bytes) -> Archive:
    """Return a good wheel, without one file and with others."""
    kept = {name: content for name, content in GOOD.items() if name != without}
    return Archive("tiny.whl", {**kept, **more})


def complaints_of(archive: Archive) -> list[str]:
    found = contents.complaints(package(), archive, FILES)
    return [each.removeprefix(f"{archive.name}: ") for each in found]


def test_a_wheel_with_its_module_and_its_papers_passes() -> None:
    assert complaints_of(wheel()) == []


def test_an_sdist_with_its_files_passes() -> None:
    names = {*FILES, "PKG-INFO", ".gitignore"}
    assert complaints_of(Archive("tiny.tar.gz", dict.fromkeys(names, b""))) == []


def test_a_stray_file_is_a_complaint() -> None:
    archive = wheel(**{"tests/test_a.py": b"", f"{TINY}/a.pyc": b""})
    assert complaints_of(archive) == [
        f"{TINY}/a.pyc should not be in it",
        "tests/test_a.py should not be in it",
        f"{TINY}/a.pyc is no file to publish",
    ]


@pytest.mark.parametrize(
    "missing, complaint",
    [
        (f"{TINY}/__init__.py", f"{TINY}/__init__.py is missing"),
        (f"{INFO}/licenses/LICENSE", "the text of the licence is missing"),
    ],
)
def test_a_missing_file_is_a_complaint(missing: str, complaint: str) -> None:
    assert complaint in complaints_of(wheel(missing))


def test_a_wheel_without_types_is_a_complaint_also_if_git_has_none() -> None:
    missing = f"{TINY}/py.typed is missing: its types would not be seen"
    archive = wheel(f"{TINY}/py.typed")
    assert contents.complaints(package(), archive, FILES - {f"src/{TINY}/py.typed"}) == [
        f"{archive.name}: {missing}"
    ]


def test_a_large_file_and_a_path_of_this_machine_are_complaints() -> None:
    name = f"{TINY}/__init__.py"
    assert complaints_of(wheel(**{name: b" " * 120_001})) == [
        f"{name} has 120,001 bytes, more than 120,000"
    ]
    assert complaints_of(wheel(**{name: f"x = '{ROOT}'".encode()})) == [
        f"{name} names the folder {ROOT} of this machine"
    ]


def test_an_entry_point_into_nothing_is_a_complaint() -> None:
    points = b"[console_scripts]\ntiny = elsewhere.main:run\n"
    assert complaints_of(wheel(**{f"{INFO}/entry_points.txt": points})) == [
        "the entry point 'tiny' names elsewhere.main, which is not in it"
    ]


def zipped(path: Path, files: Mapping[str, str], day: int = 1) -> Path:
    with zipfile.ZipFile(path, "w") as opened:
        for name, content in files.items():
            opened.writestr(zipfile.ZipInfo(name, (2026, 1, day, 0, 0, 0)), content)
    return path


def test_two_equal_builds_pass_and_others_say_in_what_they_differ(tmp_path: Path) -> None:
    first = zipped(tmp_path / "a.whl", {"x.py": "1", "y.py": "1"})
    assert builds.complaints(first, zipped(tmp_path / "b.whl", {"x.py": "1", "y.py": "1"})) == []
    assert builds.complaints(first, zipped(tmp_path / "c.whl", {"x.py": "2", "z.py": "1"})) == [
        f"a.whl: two builds differ in {name}" for name in ("x.py", "y.py", "z.py")
    ]
    later = zipped(tmp_path / "d.whl", {"x.py": "1", "y.py": "1"}, day=2)
    assert builds.complaints(first, later) == [
        "a.whl: two builds differ in order, times or rights of its files"
    ]


def test_an_sdist_is_read_without_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "tiny-4.0.0.tar.gz"
    with tarfile.open(path, "w:gz") as opened:
        member = tarfile.TarInfo("tiny-4.0.0/PKG-INFO")
        member.size = 11
        opened.addfile(member, io.BytesIO(b"Name: tiny\n"))
    archive = read(path)
    assert (archive.files, archive.metadata["Name"]) == ({"PKG-INFO": b"Name: tiny\n"}, "tiny")


# --- Versions ---

CHANGELOG = "# Changelog of tiny\n\n## 4.0.0 (not yet released)\n\n- It exists.\n"


def test_a_changelog_whose_first_section_is_that_of_the_version_passes() -> None:
    assert changelogs.complaints("tiny", "4.0.0", CHANGELOG) == []
    older = CHANGELOG + "\n## 3.9.0 (2026-01-31)\n\n- Something.\n"
    assert changelogs.complaints("tiny", "4.0.0", older) == []


@pytest.mark.parametrize(
    "text, complaint",
    [
        (CHANGELOG.replace("4.0.0", "3.9.0"), "begins with the section of 3.9.0, not with that of"),
        (CHANGELOG.replace("- It exists.", ""), "says nothing about 4.0.0"),
        (CHANGELOG.replace("not yet released", "soon"), "says neither a date"),
        (CHANGELOG.replace(" (not yet released)", ""), "says neither a date"),
        (CHANGELOG.replace("of tiny", "of large"), "has another heading"),
        (CHANGELOG.partition("##")[0], "has no section"),
        (
            CHANGELOG + "\n## 3.9.0 (not yet released)\n\n- Something.\n",
            "has a later release above 3.9.0, which is not yet released",
        ),
        (changelogs.opened(CHANGELOG, "4.0.0"), "says nothing about 4.0.0"),
    ],
)
def test_a_changelog_that_does_not_fit_the_version_is_a_complaint(
    text: str, complaint: str
) -> None:
    found = changelogs.complaints("tiny", "4.0.0", text)
    assert found[0].startswith(f"tiny: its CHANGELOG.md {complaint}")


def test_a_range_must_let_in_the_version_of_this_repository_and_not_the_next_major_one() -> None:
    core = package("procrastinate", "4.1.0")
    asking = ["procrastinate>=4,<5", "procrastinate>=4.2,<5", "procrastinate>=4", "rich", "click>1"]
    assert ranges.complaints([core, package("tiny", "4.0.0", *asking)]) == [
        "tiny: asks for procrastinate<5,>=4.2, and this repository has procrastinate 4.1.0",
        "tiny: asks for procrastinate>=4, which lets in procrastinate 5",
        "tiny: asks for rich without a lowest version",
    ]


def test_a_version_is_set_where_it_stands() -> None:
    text = '[project]\nname = "a"\nversion = "4.0.0"\n\n[tool]\nversion = "1"\n'
    assert with_version(text, "4.1.0") == text.replace("4.0.0", "4.1.0")
    assert version_in('__version__ = "4.0.0"\n') == "4.0.0"


def repository(folder: Path) -> Package:
    """Make a package on the disk, with a version in two places, and return it."""
    module = folder / "packages" / "tiny" / "src" / "tiny"
    module.mkdir(parents=True)
    (module / "__init__.py").write_text('__version__ = "4.0.0"\n')
    (module.parents[1] / "pyproject.toml").write_text('version = "4.0.0"\n')
    (module.parents[1] / "CHANGELOG.md").write_text(CHANGELOG)
    return package("tiny")


def test_a_bump_sets_the_version_everywhere_and_opens_a_section(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = repository(tmp_path)
    monkeypatch.setattr("publishing.packages.ROOT", tmp_path)
    releasing.date(tiny, "2026-12-01")
    releasing.bump(tiny, "4.1.0")
    assert (tiny.path / "src" / "tiny" / "__init__.py").read_text() == '__version__ = "4.1.0"\n'
    assert (tiny.path / "pyproject.toml").read_text() == 'version = "4.1.0"\n'
    assert (tiny.path / "CHANGELOG.md").read_text() == (
        "# Changelog of tiny\n\n## 4.1.0 (not yet released)\n\n- Nothing yet.\n\n"
        "## 4.0.0 (2026-12-01)\n\n- It exists.\n"
    )


@pytest.mark.parametrize("version", ["4.0.0", "3.9.0", "4.1", "v4.1.0", "new"])
def test_a_bump_to_no_later_version_is_refused_and_changes_nothing(
    version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = repository(tmp_path)
    monkeypatch.setattr("publishing.packages.ROOT", tmp_path)
    with pytest.raises(releasing.NoRelease, match=version):
        releasing.bump(tiny, version)
    assert (tiny.path / "pyproject.toml").read_text() == 'version = "4.0.0"\n'


def test_a_changelog_is_dated_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = repository(tmp_path)
    monkeypatch.setattr("publishing.packages.ROOT", tmp_path)
    releasing.date(tiny, "2026-12-01")
    with pytest.raises(releasing.NoRelease, match=r"there is no section '## 4\.0\.0 \(not yet"):
        releasing.date(tiny, "2026-12-02")


@pytest.mark.parametrize("day", ["2026-02-30", "2026-1-1", "20260101", "today"])
def test_what_is_no_day_is_refused(day: str) -> None:
    with pytest.raises(releasing.NoRelease, match=f"'{day}' is no day"):
        releasing.date(package(), day)


# --- What packages bring along ---


@pytest.mark.parametrize(
    "expression",
    ["MIT", "MIT AND PSF-2.0", "GPL-3.0-only OR MIT", "(GPL-2.0-only OR ISC) AND Apache-2.0"],
)
def test_licences_that_ask_for_nothing_pass(expression: str) -> None:
    assert licences.complaints("a", [Licensed("b", "1", expression)]) == []


@pytest.mark.parametrize(
    "expression",
    [
        *("GPL-3.0-only", "MIT AND GPL-3.0-only", "(MIT OR ISC) AND AGPL-3.0-only", "Custom"),
        *("GPL-2.0-only WITH Classpath-exception-2.0", "MIT AND", "(MIT", "MIT)"),
    ],
)
def test_any_other_licence_is_a_complaint(expression: str) -> None:
    (found,) = licences.complaints("a", [Licensed("b", "1", expression)])
    assert found.startswith(f"a brings b 1, whose licence is {expression}:")


def test_a_licence_that_nobody_understands_is_a_complaint() -> None:
    (found,) = licences.complaints("a", [Licensed("b", "1", None)])
    assert found.startswith("a brings b 1, whose licence is not known:")


def test_a_driver_under_the_lgpl_is_let_in_where_its_package_is_for_it_only() -> None:
    driver = Licensed("psycopg", "3.2.1", "LGPL-3.0-only")
    assert licences.complaints("procrastinate-psycopg", [driver]) == []
    assert len(licences.complaints("procrastinate", [driver])) == 1
    stricter = replace(driver, licence="GPL-3.0-only")
    assert len(licences.complaints("procrastinate-psycopg", [stricter])) == 1


@pytest.mark.parametrize(
    "said, licence",
    [
        ({"License-Expression": "MIT", "License": "GPL"}, "MIT"),
        ({"Classifier": "License :: OSI Approved :: MIT License"}, "MIT"),
        ({"License": "BSD-3-Clause"}, "BSD-3-Clause"),
        ({"License": "MIT License"}, "MIT"),
        ({"License": "See the file"}, None),
        ({"Classifier": "License :: OSI Approved"}, None),
        ({}, None),
    ],
)
def test_a_licence_is_what_the_first_place_says(said: dict[str, str], licence: str | None) -> None:
    classifiers = [said["Classifier"]] if "Classifier" in said else []
    expression, text = said.get("License-Expression"), said.get("License")
    assert licences.understood(expression, classifiers, text) == licence


def asked(*dependencies: dict[str, object]) -> str:
    return json.dumps({"dependencies": dependencies})


def test_an_audit_is_one_only_of_what_was_answered_about() -> None:
    well: dict[str, object] = {"name": "a", "version": "1", "vulns": []}
    skipped: dict[str, object] = {"name": "b", "skip_reason": "not found"}
    assert advisories.judged(asked(well), ["a"]) == Said("audit", "1 distributions.")
    some = advisories.judged(asked(well, skipped), ["a", "b"])
    assert (some.was_done, some.done) == (False, "1 of 2 distributions. Not audited: b.")


@pytest.mark.parametrize(
    "printed", ["", "Traceback", "[]", asked(), asked({"name": "a", "skip_reason": "not found"})]
)
def test_an_audit_that_reached_no_database_is_none(printed: str) -> None:
    said = advisories.judged(printed, ["a"])
    assert summary([said]) == ("audit: NOT DONE. Not audited: no advisory database was reached.")


def test_a_vulnerability_is_a_complaint() -> None:
    known = {"id": "X-1", "fix_versions": ["1.1"]}
    said = advisories.judged(asked({"name": "a", "version": "1", "vulns": [known]}), ["a"])
    assert said.complaints == ("a 1 has X-1, mended in 1.1",)
    assert not succeeded([said])


# --- Which versions work together ---


@pytest.mark.parametrize(
    "printed, returncode, outcome",
    [
        ("....\n70 passed in 12.41s", 0, Outcome(70, 0)),
        ("3 failed, 67 passed, 1 error in 9s", 1, Outcome(67, 4)),
        ("no tests ran in 1s", 5, Outcome(0, 1)),
        ("Segmentation fault", 139, Outcome(0, 1)),
        ("", 0, Outcome(0, 0)),
    ],
)
def test_a_run_is_well_if_tests_passed_and_none_failed(
    printed: str, returncode: int, outcome: Outcome
) -> None:
    assert outcome_of(printed, returncode) == outcome
    assert outcome.is_well == (outcome.passed == 70)


def test_the_same_versions_are_asked_for_once_with_all_extras() -> None:
    lines = ["psycopg>=3.2.1", "psycopg[binary]>=3.2.1", "rich"]
    assert drivers.pins(lines, {"psycopg": "3.2.1", "rich": "13.0.0"}) == [
        "psycopg[binary]==3.2.1",
        "rich==13.0.0",
    ]


def test_what_is_asked_for_on_other_systems_is_not_tested() -> None:
    tiny = package("tiny", "4.0.0", "procrastinate>=4,<5", "rich>=13; sys_platform == 'atari'", "a")
    assert drivers.asked(tiny, [package("procrastinate")]) == [Requirement("a")]


def test_other_cores_are_the_next_minor_version_of_two_contracts_and_the_next_major_one() -> None:
    assert cores.later("4.0.3", 2) == (Core("4.1.0", 2), Core("4.1.0", 3), Core("5.0.0", 2))
    text = "X = 1\nCONTRACT_VERSION = 2\n"
    assert cores.contract_in(cores.with_contract(text, 3)) == 3


def test_the_contract_is_found_in_core() -> None:
    path = named("procrastinate").path / "src" / "procrastinate" / "connector.py"
    assert cores.contract_in(path.read_text("utf-8")) > 0


def test_a_refusal_must_name_both_packages_and_both_contracts() -> None:
    core = Core("4.1.0", 3)
    said = (
        "connector 'tiny' of procrastinate-tiny 4.0.0 (tiny:Tiny) was built for version 2 of the"
        " connector contract, and procrastinate 4.1.0 has version 3: upgrade the package"
    )
    assert cores.judged(package(), core, said).is_well
    for word in ("version 2 ", "version 3", "procrastinate-tiny 4.0.0", "procrastinate 4.1.0"):
        assert not cores.judged(package(), core, said.replace(word, "x")).is_well
    assert not cores.judged(package(), core, "welcome").is_well
    assert cores.judged(package(), core, None).said == "has no connector"


def test_every_package_has_a_suite_whose_files_exist() -> None:
    assert sorted(each.package for each in SUITES) == sorted(each.name for each in packages())
    for suite in SUITES:
        for argument in (*suite.tests, *cores.smoke_of(suite)):
            assert not argument.startswith("packages/") or (ROOT / argument).exists(), argument


def test_options_of_a_smoke_test_are_added_to_the_tests() -> None:
    assert cores.smoke_of(Suite("a", ("tests",), ("-k", "x"))) == ("tests", "-k", "x")
    assert cores.smoke_of(Suite("a", ("tests",), ("tests/test_a.py",))) == ("tests/test_a.py",)
    assert cores.smoke_of(Suite("a", ("tests",))) == ("tests",)


def test_the_page_has_what_packages_ask_for_today() -> None:
    found = packages()
    asks = {each.name: page.asks(each, found) for each in found}
    assert page.asks_on(page.PAGE.read_text("utf-8")) == asks, "run nox -s publish -- --write"


def test_the_page_s_text_is_replaced_between_its_markers() -> None:
    text = "before\n\n<!-- tables: begin -->\n\nold\n\n<!-- tables: end -->\nafter\n"
    assert page.replaced(text, "new") == text.replace("old", "new")
    assert page.replaced(page.replaced(text, "new"), "old") == text


def test_the_tables_show_what_was_tried() -> None:
    tiny = package("tiny", "4.0.0", "asyncpg<1,>=0.29")
    tried = [
        drivers.Tried("tiny", "oldest", "3.11", "asyncpg 0.29.0", Outcome(70, 0)),
        drivers.Tried("tiny", "newest", "3.13", "asyncpg 0.32.0", Outcome(69, 1)),
    ]
    table = page.driver_table(tried, [tiny])
    assert table.splitlines()[2] == (
        "| `tiny` | `asyncpg>=0.29,<1` | asyncpg 0.29.0, Python 3.11: 70 tests |  |"
        " asyncpg 0.32.0, Python 3.13: 1 of 70 tests failed |"
    )
    assert page.asks_on(table) == {"tiny": "`asyncpg>=0.29,<1`"}
    core, other = Core("4.1.0", 2), Core("5.0.0", 2)
    met = [cores.Met("tiny", core, "works: 9 tests", True), cores.Met("tiny", other, "no", True)]
    assert page.core_table(met) == (
        "| | core 4.1.0, contract 2 | core 5.0.0, contract 2 |\n|---|---|---|\n"
        "| `tiny` | works: 9 tests | no |"
    )
