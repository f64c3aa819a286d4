"""What the documents say: commands that parse, links that lead somewhere, recipes that load, examples that run."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import pkgutil
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
import yaml

import subjectiveqe
from subjectiveqe.cli import app
from subjectiveqe.config import read_recipe

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(subjectiveqe.__path__, "subjectiveqe.")
    if not module.name.endswith("__main__")
)


def blocks(text: str, language: str) -> list[str]:
    """The contents of the fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)


def sqe_commands(page: Path) -> list[str]:
    lines = "".join(blocks(page.read_text(encoding="utf-8"), "sh")).replace("\\\n", " ").splitlines()
    parts = [part.strip() for line in lines for part in line.split("&&")]
    starts = re.compile(r"^(sqe|torchrun .* -m subjectiveqe) ")
    return [starts.sub("", part) for part in parts if starts.match(part)]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name):
    module = importlib.import_module(name)
    told = doctest.testmod(module)
    assert told.failed == 0
    assert told.attempted > 0 or ">>>" not in (module.__doc__ or "") + inspect.getsource(module)


def test_the_quick_start_is_the_two_commands_that_ci_runs():
    assert "".join(blocks((ROOT / "README.md").read_text(encoding="utf-8"), "sh")).splitlines() == [
        "pip install . && sqe demo",
        "pip install -c constraints.txt '.[dev]' && pytest",
    ]
    assert "README.md" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "command", [pytest.param(command, id=f"{page.stem}: {command}") for page in PAGES for command in sqe_commands(page)]
)
def test_commands_parse(command):
    name, *words = shlex.split(command)
    known = typer.main.get_command(app)
    while name in (children := getattr(known, "commands", {})):
        known = children[name]
        name, words = (words[0], words[1:]) if getattr(known, "commands", None) else (name, words)
    assert not getattr(known, "commands", None), f"unknown command: {name}"
    known.make_context(name, words)  # reads the options and runs nothing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_examples_compile_and_what_they_import_is_there(page):
    for block in blocks(page.read_text(encoding="utf-8"), "python"):
        compile(block, page.name, "exec")
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("subjectiveqe"):
                module = importlib.import_module(str(node.module))
                assert [name.name for name in node.names if not hasattr(module, name.name)] == []


def test_the_keys_of_recipes_are_those_of_the_page():
    made = subprocess.run(
        [sys.executable, ROOT / "tools" / "recipe_keys.py"], capture_output=True, text=True, check=True
    )
    assert (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8").endswith(made.stdout)


def test_the_architecture_names_modules_that_are_there():
    named = set(re.findall(r"\b(?:\w+/)?\w+\.py\b", (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")))
    assert len(named) > 10
    there = {str(path.relative_to(ROOT)) for path in (ROOT / "src").rglob("*.py")}
    assert [name for name in named if not any(path.endswith(f"/{name}") for path in there)] == []


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_parse(path):
    assert read_recipe(path).name == path.stem


def test_everything_shipped_is_in_the_list_of_third_party_material():
    listed = (ROOT / "THIRD_PARTY.md").read_text(encoding="utf-8")
    assets = Path(subjectiveqe.__file__).parent / "assets"
    assert [path.name for path in assets.rglob("*") if path.is_file() and f"`{path.name}`" not in listed] == []


def test_the_citation_is_of_this_version_and_names_what_it_builds_on():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == subjectiveqe.__version__
    titles = " ".join(reference["title"] for reference in citation["references"])
    assert "SubjectiveQE-ESRGAN" in titles
    assert "Enhanced Super-Resolution Generative Adversarial Networks" in titles
