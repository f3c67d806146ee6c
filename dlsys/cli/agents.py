"""`agents`: any algorithm in any environment; and what a run's agent does, measured, seen and recorded."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dlsys.cli import command as commands
from dlsys.cli.output import AsJson, give
from dlsys.errors import UsageError

if TYPE_CHECKING:
    from dlsys.rl.agent import Player
    from dlsys.spec.rl.job import RLJob

app = typer.Typer(help="Train an agent, and play with a run's.", no_args_is_help=True)

Run = Annotated[str, typer.Argument(help="The beginning of a run's id.")]
Changes = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Changes of its environment: environment.options.x=1"),
]
Seed = Annotated[int | None, typer.Option(help="Of the episodes' starts; by default the run's.")]
Best = Annotated[bool, typer.Option("--best", help="The best checkpoint in place of the last.")]

_RECORDED = 100
_VIDEOS = (".gif", ".mp4")


@app.command()
def train(
    algorithm: Annotated[str, typer.Argument(help="Such as ppo: docs/rl.md has all.")],
    environment: Annotated[
        str, typer.Argument(help="A gymnasium id (CartPole-v1), or your own package.module:Class.")
    ],
    changes: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Dotted overrides: algorithm.lr=1e-3 stop.steps=50000"),
    ] = None,
    print_: Annotated[
        bool, typer.Option("--print", help="Check it and print its file, and train nothing.")
    ] = False,
    address: Annotated[
        str | None, typer.Option(help="A running Ray cluster; by default RAY_ADDRESS, or a Ray of its own.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train an algorithm in an environment, as a file with these lines would (dlsys run).

    It stops after 100,000 steps, if no stop.… says otherwise.
    """
    from dlsys.spec.rl.pair import of_pair

    given = commands.overrides(changes or [], "Changes are algorithm.lr=1e-3.")
    loaded, plain = of_pair(algorithm, environment, given, Path.cwd())
    if print_:
        from dlsys.spec import yaml

        print(yaml.dump(plain), end="")
        return
    from dlsys.cli.run import carry_out
    from dlsys.jobs import run as runs

    carry_out(loaded, runs.prepare(loaded), address or os.environ.get("RAY_ADDRESS") or None, as_json)


@app.command()
def evaluate(
    run: Run,
    changes: Changes = None,
    episodes: Annotated[
        int | None, typer.Option(help="How many; by default as many as the test has.")
    ] = None,
    seed: Seed = None,
    explore: Annotated[
        bool, typer.Option("--explore", help="Draw actions from the policy's chances, as in training.")
    ] = False,
    best: Best = False,
    as_json: AsJson = False,
) -> None:
    """Play episodes and print their mean return, its deviation, the least one, lengths and metrics.

    With the same seed and number they are the episodes of the run's test.
    """
    from dlsys.rl.evaluate import play

    said = {"episodes.test": episodes, "seed": seed, "episodes.explore": explore or None}
    job, player, name, step = _opened(run, changes, said, best)
    told = job.episodes
    played = play(
        player,
        job.environment,
        told.test,
        sees=job.algorithm.SEES,
        seed=job.seed,
        split="test",
        explore=told.explore,
    )
    assert played is not None, "nobody stopped it"
    figures = played.summary()
    if as_json:
        about = {"run": name, "step": step, "episodes": told.test, "seed": job.seed, "explore": told.explore}
        give({**about, "cut": played.cut, "metrics": figures})
        return
    rows = {"run": name, "step": f"{step:,}", "episodes": str(told.test)}
    rows |= {metric: f"{value:.6g}" for metric, value in figures.items()}
    width = max(map(len, rows))
    for metric, text in rows.items():
        print(f"{metric:{width}}  {text}")
    if played.cut:
        print(
            f"{played.cut} episodes had no end and were cut: environment.max_steps says where",
            file=sys.stderr,
        )


@app.command()
def watch(
    run: Run,
    changes: Changes = None,
    episodes: Annotated[int, typer.Option(min=1, help="How many.")] = 5,
    seed: Seed = None,
    best: Best = False,
) -> None:
    """Watch the agent act in a window, on a desktop."""
    from dlsys.rl.pictures import show

    job, player, _, _ = _opened(run, changes, {"seed": seed}, best)
    shown = show(player, job.environment, episodes=episodes, seed=job.seed, sees=job.algorithm.SEES)
    for index, value in enumerate(shown, 1):
        print(f"episode {index}: return {value:.6g}")


@app.command()
def record(
    run: Run,
    target: Annotated[
        Path, typer.Argument(metavar="FILE", help="episodes.parquet, or a video: episode.gif, episode.mp4.")
    ],
    changes: Changes = None,
    episodes: Annotated[
        int | None, typer.Option(min=1, help=f"How many; by default {_RECORDED}, and 1 in a video.")
    ] = None,
    explore_share: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="The share of random actions in a FILE.parquet; by default none."),
    ] = None,
    seed: Seed = None,
    best: Best = False,
) -> None:
    """Record episodes: as offline agents read them (FILE.parquet), or as a video (FILE.gif, FILE.mp4)."""
    if target.suffix not in (".parquet", *_VIDEOS):
        raise UsageError(
            f"{target}: say FILE.parquet for offline agents, or FILE.gif or FILE.mp4 for a video"
        )
    if explore_share is not None and target.suffix in _VIDEOS:
        raise UsageError("--explore-share: is for a FILE.parquet: leave it out")
    from dlsys.rl.episodes import record as write
    from dlsys.rl.pictures import film

    job, player, _, step = _opened(run, changes, {"seed": seed}, best)
    told, sees = job.environment, job.algorithm.SEES
    if target.suffix in _VIDEOS:
        returns = film(player, told, target, episodes=episodes or 1, seed=job.seed, sees=sees)
    else:
        share = explore_share or 0.0
        returns = write(player, told, episodes or _RECORDED, job.seed, target, share, sees=sees)
    mean, count = sum(returns) / len(returns), len(returns)
    played = f"{count} episode{'s' if count != 1 else ''} of the agent of step {step:,}"
    print(f"{target}: {played}, mean return {mean:.6g}")


@app.command()
def estimate(
    run: Run,
    recorded: Annotated[Path, typer.Argument(metavar="FILE", help="What `agents record` wrote.")],
    changes: Changes = None,
    explore_share: Annotated[
        float, typer.Option(min=0, max=1, help="The share of random actions that the agent is to take.")
    ] = 0.0,
    gamma: Annotated[float, typer.Option(min=0, max=1, help="The discount of rewards a step later.")] = 1.0,
    best: Best = False,
    as_json: AsJson = False,
) -> None:
    """Estimate the return of an agent from episodes that another one recorded, without playing.

    Actions are discrete. The fewer steps and the more alike both agents, the surer it is.
    """
    from dlsys.rl.estimates import of_agent

    job, player, name, step = _opened(run, changes, {}, best)
    told, mean, episodes = of_agent(
        player, job.environment, recorded, explore_share, gamma=gamma, seed=job.seed, sees=job.algorithm.SEES
    )
    methods = {key: value for key, value in told._asdict().items() if key != "effective"}
    if as_json:
        about = {"run": name, "step": step, "episodes": episodes, "recorded_return": mean}
        found = {key: value._asdict() for key, value in methods.items()}
        give({**about, "effective_episodes": told.effective, "estimates": found})
        return
    rows = {"run": name, "step": f"{step:,}", "episodes": f"{episodes:,}, return {mean:.6g}"}
    rows["effective episodes"] = f"{told.effective:.6g}"
    for method, (value, low, high) in methods.items():
        rows[method.replace("_", " ")] = f"{value:.6g}  ({low:.6g} to {high:.6g})"
    width = max(map(len, rows))
    for method, text in rows.items():
        print(f"{method:{width}}  {text}")


def _opened(
    run: str, changes: list[str] | None, said: Mapping[str, object], best: bool
) -> tuple[RLJob, Player, str, int]:
    """A run's job with what is changed of it, what acts in its checkpoint, the run's id and the checkpoint's
    step.

    Args:
        said: what options say, by the keys of the job; None where they were not given.
    """
    from dlsys.jobs.moved import folder_of
    from dlsys.paths import RunPaths
    from dlsys.rl.saved import player
    from dlsys.spec.load import Loaded, load_any
    from dlsys.spec.overrides import as_given

    given = commands.overrides(changes or [], "Changes are environment.options.x=1.")
    if wrong := [text for text in given if not text.startswith("environment.")]:
        raise UsageError(f"{wrong[0]}: an agent that was trained can be given another environment alone")
    paths = RunPaths.find(run)
    folder = folder_of(paths)
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))  # where the user's environment lies, wherever this is called
    options = as_given({key: value for key, value in said.items() if value is not None})
    loaded = load_any(paths.spec, [*options, *given], folder=folder, there="none")
    job = loaded.agent if isinstance(loaded, Loaded) else None
    if job is None:
        raise UsageError(
            f"{paths.id}: is no run of an agent (kind: rl)", hint="Of a sweep, say a trial: dlsys sweep show"
        )
    found, step = player(job, paths.checkpoints, best=best)
    return job, found, paths.id, step
