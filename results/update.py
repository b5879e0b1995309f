"""Keeps what a run measured, and writes the README's table of results from what is kept.

python results/update.py                     writes the table anew
python results/update.py RUN NAME            first copies the run folder's figures to results/runs/NAME-seedN
"""

import json
import shutil
import statistics
import sys
from collections import defaultdict
from pathlib import Path

import yaml

from supertokenvit.model.summary import changed
from supertokenvit.training.report import read_metrics

HERE = Path(__file__).parent
README = HERE.parent / "README.md"
KEPT = ("recipe.yaml", "metrics.csv", "evaluation.json", "environment.json", "curves.png", "confusion.png", "log.txt")
BEGIN, END = "<!-- results -->", "<!-- end of results -->"


def keep(run: Path, name: str) -> None:
    """Copies the figures of a run, with paths of the machine cut to their last part."""
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    folder = HERE / "runs" / f"{name}-seed{recipe['seed']}"
    folder.mkdir(parents=True, exist_ok=True)
    for file in KEPT:
        if (run / file).exists():
            shutil.copy(run / file, folder / file)
    log = (folder / "log.txt").read_text()
    for field in ("data", "init", "teacher", "out"):
        if recipe[field]:
            log = log.replace(recipe[field], Path(recipe[field]).name)
            recipe[field] = Path(recipe[field]).name
    (folder / "log.txt").write_text(log)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))


def spread(values: list[float]) -> str:
    """Mean, and lowest and highest when there are several, in per cent."""
    text = f"{100 * statistics.mean(values):.2f} %"
    return (
        text
        if len(values) == 1
        else f"{text} ({100 * min(values):.2f} to {100 * max(values):.2f}, {len(values)} seeds)"
    )


def table() -> str:
    """The rows of the README, one for each name."""
    groups: dict[str, list[Path]] = defaultdict(list)
    for folder in sorted((HERE / "runs").glob("*-seed*")):
        groups[folder.name.rsplit("-seed", 1)[0]].append(folder)
    lines = ["| run | model | training | part | top-1 | machine |", "|---|---|---|---|---|---|"]
    for name, folders in groups.items():
        recipe = yaml.safe_load((folders[0] / "recipe.yaml").read_text())
        figures = [json.loads((folder / "evaluation.json").read_text()) for folder in folders]
        part = "test" if "test" in figures[0] else "validation"
        metrics = [read_metrics(folder / "metrics.csv")[-1] for folder in folders]
        minutes, epochs = (statistics.mean(row[name] for row in metrics) for name in ("minutes", "epoch"))
        machine = json.loads((folders[0] / "environment.json").read_text())
        link = f"[{name}](results/runs/{folders[0].name})"
        training = f"{minutes:.1f} min, {epochs:.1f} epochs"
        cores = machine["threads"] * machine.get("processes", 1)
        where = f"{cores} core{'s' if cores > 1 else ''}, {machine['cpu']}"
        values = [f[part]["top1"] for f in figures]
        given = changed(recipe["model"], recipe["model_args"])
        args = f" ({', '.join(f'{key} {value}' for key, value in given.items())})" if given else ""
        what = f"`{recipe['model']}`{args} at {recipe['img_size']} px"
        lines.append(f"| {link} | {what} | {training} | {part} | {spread(values)} | {where} |")
    return "\n".join(lines)


def write_readme() -> None:
    """Puts the table between the two marks."""
    text = README.read_text()
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2] if END in rest else rest
    README.write_text(f"{before}{BEGIN}\n{table()}\n{END}{after}")


if __name__ == "__main__":
    if len(sys.argv) > 2:
        keep(Path(sys.argv[1]), sys.argv[2])
    write_readme()
