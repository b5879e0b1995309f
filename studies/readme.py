"""Keeps what a run measured, and writes the README's table of results from what is kept.

python -m studies.readme                     writes the table anew
python -m studies.readme RUN NAME            first copies the run folder's figures to results/runs/NAME-seedN
"""

import argparse
import json
import shutil
import statistics
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import yaml

from supertokenvit.model.summary import changed
from supertokenvit.run_folder import RunFolder, write_json
from supertokenvit.training.report import read_metrics

from .common import RESULTS, ROOT

README = ROOT / "README.md"
KEPT = ("recipe", "metrics", "evaluation", "environment", "curves", "confusion", "log")
BEGIN, END = "<!-- results -->", "<!-- end of results -->"


def keep(run: RunFolder, name: str) -> None:
    """Copies the figures of a run, with paths of the machine cut to their last part."""
    recipe = yaml.safe_load(run.recipe.read_text())
    folder = RunFolder(RESULTS / "runs" / f"{name}-seed{recipe['seed']}")
    folder.path.mkdir(parents=True, exist_ok=True)
    for file in KEPT:
        if getattr(run, file).exists():
            shutil.copy(getattr(run, file), getattr(folder, file))
    log = folder.log.read_text()
    for field in ("data", "init", "teacher", "out"):
        if recipe[field]:
            log = log.replace(recipe[field], Path(recipe[field]).name)
            recipe[field] = Path(recipe[field]).name
    about = json.loads(folder.environment.read_text())
    write_json(folder.environment, {key: value for key, value in about.items() if key != "working_directory"})
    folder.log.write_text(log)
    folder.recipe.write_text(yaml.safe_dump(recipe, sort_keys=False))


def several(values: list[float]) -> str:
    """Writes the mean in per cent, and the lowest and highest when there are several."""
    text = f"{100 * statistics.mean(values):.2f} %"
    return (
        text
        if len(values) == 1
        else f"{text} ({100 * min(values):.2f} to {100 * max(values):.2f}, {len(values)} seeds)"
    )


def table() -> str:
    """Writes the rows of the README, one for each name."""
    groups: dict[str, list[RunFolder]] = defaultdict(list)
    for path in sorted((RESULTS / "runs").glob("*-seed*")):
        groups[path.name.rsplit("-seed", 1)[0]].append(RunFolder(path))
    lines = ["| run | model | training | split | top-1 | machine |", "|---|---|---|---|---|---|"]
    for name, folders in groups.items():
        recipe = yaml.safe_load(folders[0].recipe.read_text())
        figures = [json.loads(folder.evaluation.read_text()) for folder in folders]
        split = "test" if "test" in figures[0] else "validation"
        metrics = [read_metrics(folder.metrics)[-1] for folder in folders]
        minutes, epochs = (statistics.mean(row[name] for row in metrics) for name in ("minutes", "epoch"))
        machine = json.loads(folders[0].environment.read_text())
        link = f"[{name}](results/runs/{folders[0].path.name})"
        training = f"{minutes:.1f} min, {epochs:.1f} epochs"
        cores = machine["threads"] * machine.get("processes", 1)
        where = f"{cores} core{'s' if cores > 1 else ''}, {machine['cpu']}"
        values = [f[split]["top1"] for f in figures]
        given = changed(recipe["model"], recipe["model_args"])
        args = f" ({', '.join(f'{key} {value}' for key, value in given.items())})" if given else ""
        what = f"`{recipe['model']}`{args} at {recipe['img_size']} px"
        lines.append(f"| {link} | {what} | {training} | {split} | {several(values)} | {where} |")
    return "\n".join(lines)


def write_readme() -> None:
    """Puts the table between its two marks in the README."""
    text = README.read_text()
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2] if END in rest else rest
    README.write_text(f"{before}{BEGIN}\n{table()}\n{END}{after}")


def main(argv: Sequence[str] | None = None) -> None:
    """Keeps a run's figures, if one is named, and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", help="run folder")
    parser.add_argument("name", nargs="?", help="what its row is called")
    args = parser.parse_args(argv)
    if args.name:
        keep(RunFolder(args.run), args.name)
    write_readme()


if __name__ == "__main__":
    main()
