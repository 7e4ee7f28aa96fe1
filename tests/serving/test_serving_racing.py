"""Work against the clock and against rivals, and who is told when it is broken off."""

from __future__ import annotations

import asyncio

import pytest

from ms_medqa.serving.racing import Overtaken, race


async def _work(log: list[str], seconds: float = 0.0, clean_up: float = 0.0) -> str:
    try:
        await asyncio.sleep(seconds)
        return "done"
    finally:
        await asyncio.sleep(clean_up)
        log.append("cleaned up")


def test_the_first_one_counts_and_all_clean_up() -> None:
    async def play(seconds: float, rival: float, limit: float) -> tuple[object, list[str]]:
        log: list[str] = []
        try:
            result: object = await race(_work(log, seconds), asyncio.sleep(30), _work(log, rival, 0.01), seconds=limit)
        except Overtaken as overtaken:
            result = overtaken.by
        return result, log

    for times, result in (((0.0, 30.0, 30.0), "done"), ((30.0, 0.0, 30.0), 1), ((30.0, 30.0, 0.01), None)):
        assert asyncio.run(play(*times)) == (result, ["cleaned up"] * 2)


def test_who_breaks_the_race_off_is_heard_while_it_cleans_up() -> None:
    async def play() -> None:
        log: list[str] = []
        running = asyncio.ensure_future(race(_work(log), _work(log, 30, 0.2)))
        await asyncio.sleep(0.1)
        assert log == ["cleaned up"]
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(play())
