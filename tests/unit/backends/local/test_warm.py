"""A pool loads for its calls, keeps what it is told to, and gives everything back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing
from typing import Any, TypeAlias

import pytest
from msgspec.structs import replace

from polyroute.backends.echo import Script
from polyroute.backends.local.memory import Memory
from polyroute.backends.local.scale import PRESSED_S, Bounds
from polyroute.core.backend import BackendStatus, ModelState, Preview
from polyroute.core.call import Call
from polyroute.core.config import HedgeConfig, LocalConfig, WarmConfig
from polyroute.core.errors import (
    DeadlineExceeded,
    Draining,
    ModelFailed,
    ModelLoading,
    Overloaded,
    PolyrouteError,
    WorkerDied,
)
from polyroute.core.event import Event, Started, Token
from polyroute.core.request import Request
from polyroute.core.trace import SAMPLED, Span, Trace
from tests.unit.backends.local.loading import MIB, Site, site, until

CALL = Call(Request(model="m", prompt="a b c"), "r1")
COLD = Bounds(0, 1, 60.0)
KEPT = Bounds(1, 1, 60.0)

Sites: TypeAlias = Callable[..., Site]


@pytest.fixture
async def sites() -> AsyncIterator[Sites]:
    """Makes pools; afterwards no task, no call and no memory of theirs is left."""
    made: list[Site] = []
    before = asyncio.all_tasks()

    def make(*args: Any, **options: Any) -> Site:
        made.append(site(*args, **options))
        return made[-1]

    yield make
    for one in made:
        await one.pool.stop()
    for one in made:
        assert one.pool._replicas.slots == []
        assert one.pool._memory.held("cpu") == 0
        assert [replica.open for replica in one.made] == [0] * len(one.made)
        assert all(replica.stopped for replica in one.made)
    await until(lambda: asyncio.all_tasks() <= before | {asyncio.current_task()})


async def collect(pool: Any, call: Call = CALL) -> list[Event]:
    async with aclosing(pool.stream(call)) as events:
        return [event async for event in events]


async def text(pool: Any, call: Call = CALL) -> str:
    return "".join(event.text for event in await collect(pool, call) if isinstance(event, Token))


def run(work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    return asyncio.create_task(work)


def states(at: Site) -> list[ModelState]:
    return [replica.state for replica in at.pool.status().replicas]


async def test_the_wait_for_a_load_is_a_span_of_a_call_that_is_sampled(sites: Sites) -> None:
    at = sites()
    await at.pool.start()
    spans: list[Span] = []
    trace = Trace("a" * 32, "", SAMPLED)
    call = replace(CALL, trace=trace.under(Span("call", "server", trace, spans.append, {})))
    left, stays = run(text(at.pool, call)), run(text(at.pool, call))
    replica = await at.made_one()
    at.clock[0] += 0.5
    left.cancel()
    await asyncio.wait([left])
    replica.gate.set()
    assert await stays == "a b c"
    await text(at.pool, call)  # finds it warm
    loads = [span for span in spans if span.name == "load"]
    assert [span.attributes.get("polyroute.outcome") for span in loads] == ["CANCELLED", None]
    assert {span.attributes["polyroute.deployment"] for span in loads} == {"m"}


async def test_many_who_find_it_cold_wait_for_one_load(sites: Sites) -> None:
    at = sites()
    await at.pool.start()
    assert at.pool.status().state is ModelState.COLD
    callers = [run(text(at.pool)) for _ in range(20)]
    replica = await at.made_one()
    assert at.pool.status().state is ModelState.LOADING
    replica.gate.set()
    assert await asyncio.gather(*callers) == ["a b c"] * 20
    assert (len(at.made), replica.loads, at.loads) == (1, 1, ["ok"])
    status = at.pool.status()
    assert (status.state, status.version, status.max_sequences) == (ModelState.WARM, "v1", 2)
    assert [r.name for r in status.replicas] == ["m#0"]


async def test_who_leaves_while_waiting_takes_the_load_from_nobody(sites: Sites) -> None:
    at = sites()
    first, second = run(text(at.pool)), run(text(at.pool))
    replica = await at.made_one()
    first.cancel()
    await asyncio.wait([first])
    replica.gate.set()
    assert await second == "a b c"
    assert len(at.made) == 1


async def test_the_last_who_leaves_leaves_the_load_going(sites: Sites) -> None:
    at = sites()
    only = run(text(at.pool))
    await at.made_one()
    only.cancel()
    await asyncio.wait([only])
    await at.warm()
    assert at.pool.status().state is ModelState.WARM


async def test_a_deadline_ends_the_wait_and_not_the_load(sites: Sites) -> None:
    at = sites()
    with pytest.raises(DeadlineExceeded, match="the deadline passed while `m` was being loaded"):
        await collect(at.pool, Call(CALL.request, "r", deadline=time.monotonic()))
    await at.warm()
    assert await text(at.pool) == "a b c"
    assert len(at.made) == 1


async def test_a_load_that_does_not_get_on_is_not_waited_for(sites: Sites) -> None:
    at = sites(stall_s=0.02)
    waiting = run(collect(at.pool))
    replica = await at.made_one()
    replica.detail = "downloading 5 of 10"
    at.clock[0] = 1.0
    with pytest.raises(ModelLoading, match=r"`m` is being loaded: downloading 5 of 10; no progress for 0\.02 s"):
        await waiting


async def test_a_load_that_gets_on_is_waited_for(sites: Sites) -> None:
    at = sites(stall_s=0.02)
    waiting = run(text(at.pool))
    replica = await at.made_one()
    for _ in range(3):
        at.clock[0] += 0.01
        replica.progressed_at = at.clock[0]
        await asyncio.sleep(0.02)
        assert not waiting.done()
    replica.gate.set()
    assert await waiting == "a b c"


async def test_who_does_not_wait_is_told_and_the_load_begins(sites: Sites) -> None:
    at = sites()
    hurried = Call(CALL.request, "r", wait_for_load=False)
    with pytest.raises(ModelLoading, match="`m` is being loaded") as caught:
        await collect(at.pool, hurried)
    assert caught.value.retry_after_s == 2.0
    await at.warm()
    assert await text(at.pool, hurried) == "a b c"


async def test_a_failed_load_tells_all_who_wait_at_once_and_backs_off(sites: Sites) -> None:
    at = sites(fails=ModelFailed("model `m` is not loaded: its weights are damaged"))
    callers = [run(collect(at.pool)) for _ in range(5)]
    (await at.made_one()).gate.set()
    errors = await asyncio.gather(*callers, return_exceptions=True)
    assert {str(error) for error in errors} == {"model `m` is not loaded: its weights are damaged"}
    assert at.loads == ["MODEL_FAILED"]
    assert (at.pool.status().state, at.pool.status().detail) == (ModelState.FAILED, str(errors[0]))

    await until(lambda: not at.pool._replicas.slots)
    with pytest.raises(ModelFailed) as soon:
        await collect(at.pool)
    assert soon.value.retry_after_s == 5.0
    assert len(at.made) == 1
    at.clock[0] += 5.0
    again = run(collect(at.pool))
    (await at.made_one(2)).gate.set()
    with pytest.raises(ModelFailed):
        await again
    await until(lambda: not at.pool._replicas.slots)
    with pytest.raises(ModelFailed) as later:
        await collect(at.pool)
    assert later.value.retry_after_s == 10.0


async def test_after_a_failed_load_it_is_cold_once_another_may_be_tried(sites: Sites) -> None:
    """A plan passes over what has failed: nobody would ever try a model again that stays so."""
    at = sites(fails=ModelFailed("broken"))
    loading = run(text(at.pool))
    (await at.made_one()).gate.set()
    with pytest.raises(ModelFailed):
        await loading
    await until(lambda: not at.pool.status().replicas)
    assert (at.pool.status().state, at.pool.status().detail) == (ModelState.FAILED, "broken")
    at.move(1000)
    assert (at.pool.status().state, at.pool.status().detail) == (ModelState.COLD, "broken")


async def test_a_load_that_fails_for_weeks_is_tried_again_at_the_longest_interval(sites: Sites) -> None:
    at = sites(bounds=KEPT, fails=ModelFailed("no"))
    at.pool._replicas._failures = 2000
    await at.pool.start()
    (await at.made_one()).gate.set()
    await until(lambda: at.loads == ["MODEL_FAILED"] and not at.pool._replicas.slots)
    at.move(299)
    assert not at.pool._replicas.up
    at.move(1)
    await at.made_one(2)


async def test_whatever_breaks_a_load_ends_the_wait(sites: Sites) -> None:
    at = sites(fails=KeyError("a bug"))
    waiting = run(collect(at.pool))
    (await at.made_one()).gate.set()
    with pytest.raises(ModelFailed, match="KeyError: 'a bug'"):
        await waiting


async def test_a_load_that_is_asked_for_does_not_wait_for_the_time_to_try_again(sites: Sites) -> None:
    at = sites(fails=ModelFailed("no"))
    first = run(at.pool.load())
    (await at.made_one()).gate.set()
    with pytest.raises(ModelFailed):
        await first
    await until(lambda: not at.pool._replicas.slots)
    second = run(at.pool.load())
    replica = await at.made_one(2)
    replica.load_error = None
    replica.gate.set()
    await second
    assert at.pool.status().state is ModelState.WARM


async def test_what_is_to_be_kept_is_loaded_at_start_and_tried_again_unasked(sites: Sites) -> None:
    at = sites(bounds=KEPT, fails=ModelFailed("no"))
    await at.pool.start()
    (await at.made_one()).gate.set()
    await until(lambda: at.loads == ["MODEL_FAILED"] and not at.pool._replicas.slots)
    at.move(4.9)
    assert not at.pool._replicas.up
    at.move(0.2)
    replica = await at.made_one(2)
    replica.load_error = None
    await at.warm(2)
    at.move(1e6)
    assert states(at) == [ModelState.WARM]


async def test_one_that_dies_before_it_answers_is_tried_once_more(sites: Sites) -> None:
    died = WorkerDied("`m`: its worker process ended (SIGKILL)")
    at = sites(script=lambda call: Script(error=died) if len(at.made[0].calls) == 0 else Script())
    waiting = run(collect(at.pool))
    await at.warm()
    started = (await waiting)[0]
    assert isinstance(started, Started)
    assert [(attempt.reason, attempt.deployment) for attempt in started.route.attempts] == [("WORKER_DIED", "")]


async def several(sites: Sites, count: int, script: Script, **options: Any) -> Site:
    """A pool of so many replicas, warm."""
    at = sites(bounds=Bounds(count, count, 60.0), script=script)
    at.pool.adopt(changed(at, **options))
    for number in range(count):
        await at.warm(number + 1)
    return at


@pytest.mark.parametrize(("retries", "killed"), [(5, 2), (0, 1)])
async def test_a_call_that_kills_workers_kills_two_at_most(sites: Sites, retries: int, killed: int) -> None:
    at = await several(sites, 3, Script(error=WorkerDied("died")), retries=retries)
    with pytest.raises(WorkerDied) as caught:
        await collect(at.pool)
    assert sum(len(replica.calls) for replica in at.made) == killed
    assert [attempt.reason for attempt in caught.value.attempts] == ["WORKER_DIED"] * killed


async def test_a_call_that_killed_a_worker_and_its_hedge_is_given_up(sites: Sites) -> None:
    gate = asyncio.Event()
    at = await several(sites, 3, Script(error=WorkerDied("died"), gate=gate), retries=5, hedge=HedgeConfig(after=0.001))
    asking = run(collect(at.pool))
    await until(lambda: sum(replica.open for replica in at.made) == 2)
    gate.set()
    with pytest.raises(WorkerDied):
        await asking
    assert sum(len(replica.calls) for replica in at.made) == 2


async def test_one_that_dies_again_is_given_up(sites: Sites) -> None:
    """What kills a worker may be the call itself."""
    at = sites(script=Script(error=WorkerDied("died")))
    waiting = run(collect(at.pool))
    await at.warm()
    with pytest.raises(WorkerDied) as caught:
        await waiting
    assert [attempt.reason for attempt in caught.value.attempts] == ["WORKER_DIED"] * 2
    assert len(at.made[0].calls) == 2


async def test_an_answer_that_has_begun_is_never_repeated(sites: Sites) -> None:
    at = sites(script=Script(error=WorkerDied("died"), error_after=1))
    waiting = run(collect(at.pool))
    await at.warm()
    with pytest.raises(WorkerDied):
        await waiting
    assert len(at.made[0].calls) == 1


async def test_a_worker_that_is_being_replaced_is_waited_for(sites: Sites) -> None:
    at = sites()
    await asyncio.gather(at.pool.load(), at.warm())
    at.made[0].become(ModelState.LOADING)
    waiting = run(text(at.pool))
    await asyncio.sleep(0)
    assert at.pool.status().state is ModelState.LOADING
    at.made[0].become(ModelState.WARM)
    assert await waiting == "a b c"
    assert len(at.made) == 1


async def test_a_worker_that_cannot_be_replaced_leaves(sites: Sites) -> None:
    at = sites()
    await asyncio.gather(at.pool.load(), at.warm())
    at.made[0].become(ModelState.FAILED, "its weights are gone")
    with pytest.raises(ModelFailed, match="`m` is not loaded: its weights are gone"):
        await collect(at.pool)
    await until(lambda: at.made[0].stopped)
    assert at.pool._memory.held("cpu") == 0


async def test_replicas_follow_a_queue_up_and_idleness_down(sites: Sites) -> None:
    gate = asyncio.Event()
    at = sites(bounds=Bounds(1, 3, 60.0), script=Script(gate=gate))
    await at.pool.start()
    await at.warm()
    held = [run(collect(at.pool)) for _ in range(2)]
    await until(lambda: at.made[0].open == 2)
    at.queued[0] = 4
    at.move(0)
    at.move(PRESSED_S)
    assert states(at) == [ModelState.WARM, ModelState.LOADING]
    at.move(10 * PRESSED_S)  # one after the other: what one more changes is to be seen first
    assert len(at.pool._replicas.up) == 2
    await at.warm(2)
    assert at.pool.status().max_sequences == 4  # and so there are permits for it
    at.queued[0] = 0
    at.move(30)
    gate.set()
    await asyncio.gather(*held)
    at.move(0)
    at.move(59)
    assert len(at.pool._replicas.up) == 2
    at.move(1)
    await until(lambda: len(at.pool._replicas.slots) == 1)
    at.move(1e6)
    assert states(at) == [ModelState.WARM]
    assert [replica.stopped for replica in at.made] == [False, True]


async def test_calls_that_wait_inside_a_worker_ask_for_one_more(sites: Sites) -> None:
    """As where there are more permits than seats, so that nothing queues for one."""
    gate = asyncio.Event()
    at = sites(bounds=Bounds(1, 3, 60.0), script=Script(gate=gate), seats=2)
    await at.pool.start()
    await at.warm()
    held = [run(collect(at.pool)) for _ in range(7)]
    await until(lambda: at.made[0].open == 7)
    at.move(0)
    at.move(PRESSED_S)
    assert states(at) == [ModelState.WARM, ModelState.LOADING]
    at.move(1)
    at.move(10 * PRESSED_S)  # one after the other here, too
    assert len(at.pool._replicas.up) == 2
    await at.warm(2)
    at.move(0)
    at.move(PRESSED_S)
    assert len(at.pool._replicas.up) == 3
    gate.set()
    await asyncio.gather(*held)


async def test_its_status_may_be_asked_for_by_a_thread_while_replicas_come_and_go(sites: Sites) -> None:
    at = sites(bounds=Bounds(2, 2, 60.0))
    await at.pool.start()
    await at.warm()
    slots, (loading,) = at.pool._replicas.slots, [one for one in at.made if one.state is ModelState.LOADING]
    there, told = [*slots], loading.status

    def amid() -> BackendStatus:
        slots[:] = there[:1]
        return told()

    loading.status = amid  # type: ignore[method-assign]
    assert [replica.state for replica in at.pool.status().replicas] == [ModelState.WARM, ModelState.LOADING]
    slots[:] = there


async def test_no_more_than_the_most_are_started(sites: Sites) -> None:
    at = sites(bounds=Bounds(1, 1, 60.0))
    await at.pool.start()
    await at.warm()
    at.queued[0] = 9
    at.move(0)
    at.move(1e6)
    assert len(at.made) == 1


async def test_an_idle_model_leaves_and_is_known_while_it_is_cold(sites: Sites) -> None:
    at = sites(bounds=COLD)
    await asyncio.gather(text(at.pool), at.warm())
    at.move(59)
    assert states(at) == [ModelState.WARM]
    at.move(1)
    await until(lambda: not at.pool._replicas.slots)
    status = at.pool.status()
    assert (status.state, status.version, status.replicas) == (ModelState.COLD, "v1", ())
    assert at.made[0].stopped
    again = run(text(at.pool))
    await at.warm(2)
    assert await again == "a b c"


async def test_a_model_in_use_does_not_leave(sites: Sites) -> None:
    gate = asyncio.Event()
    at = sites(bounds=COLD, script=Script(gate=gate))
    waiting = run(text(at.pool))
    await at.warm()
    await until(lambda: at.made[0].open == 1)
    at.move(1000)
    at.move(1000)
    assert states(at) == [ModelState.WARM]
    gate.set()
    assert await waiting == "a b c"
    at.move(59)
    assert states(at) == [ModelState.WARM]


def small(sites: Sites, memory: Memory, model: str, **options: Any) -> Site:
    """A pool whose replicas take 30 MiB, with 16 MiB for keys and values before they are measured."""
    at = sites(model, memory=memory, mib=30, **options)
    at.pool._replicas.weights_bytes = 20 * MIB
    return at


async def test_the_model_used_longest_ago_leaves_for_another(sites: Sites) -> None:
    memory = Memory(90 * MIB)
    old, new, third = (small(sites, memory, name) for name in ("old", "new", "third"))
    await asyncio.gather(text(old.pool), old.warm())
    new.clock[0] = 5.0
    await asyncio.gather(text(new.pool), new.warm())
    asked = run(text(third.pool))
    await third.warm()
    assert await asked == "a b c"
    assert (old.pool.status().state, new.pool.status().state) == (ModelState.COLD, ModelState.WARM)
    assert memory.held("cpu") == 60 * MIB


async def test_a_model_in_use_is_waited_for_and_one_to_be_kept_is_not(sites: Sites) -> None:
    memory = Memory(64 * MIB, wait_s=60)
    gate = asyncio.Event()
    busy = small(sites, memory, "busy", script=Script(gate=gate))
    other = small(sites, memory, "other")
    answer = run(text(busy.pool))
    await busy.warm()
    await until(lambda: busy.made[0].open == 1)
    asked = run(text(other.pool))
    await until(lambda: bool(other.pool._replicas.slots))
    await asyncio.sleep(0.01)
    assert other.made == []
    assert other.pool.status().replicas[0].detail == "waiting for memory"
    gate.set()
    assert await answer == "a b c"
    await other.warm()
    assert await asked == "a b c"
    assert busy.pool.status().state is ModelState.COLD

    kept = small(sites, memory, "kept", bounds=KEPT)
    await kept.pool.start()
    await kept.warm()  # `other` has left for it
    with pytest.raises(Overloaded, match=r"`busy#0` needs about 46 MiB on cpu.*`kept#0` 30 MiB \(wanted\)"):
        await collect(busy.pool)
    assert busy.pool.status().state is ModelState.COLD
    assert "held by `kept#0`" in busy.pool.status().detail


async def test_one_more_replica_takes_no_memory_from_another_model(sites: Sites) -> None:
    memory = Memory(64 * MIB)
    other = small(sites, memory, "other")
    at = small(sites, memory, "m", bounds=Bounds(0, 2, 60.0))
    at.pool._replicas.weights_bytes = 1 * MIB
    await asyncio.gather(text(other.pool), other.warm())
    await asyncio.gather(text(at.pool), at.warm())
    at.queued[0] = 3
    at.move(0)
    at.move(PRESSED_S)
    await until(lambda: at.loads == ["ok", "OVERLOADED"])
    assert (states(other), len(at.made)) == ([ModelState.WARM], 1)
    assert await text(at.pool) == "a b c"  # what failed for one more is no failure of the model
    assert at.pool.status().state is ModelState.WARM
    at.made[0].become(ModelState.FAILED, "its weights are gone")  # and does not lengthen the wait after one
    assert at.pool._replicas.retry_at == at.clock[0] + 5.0


async def test_an_unload_lets_calls_finish_and_holds_until_somebody_asks(sites: Sites) -> None:
    gate = asyncio.Event()
    at = sites(bounds=KEPT, script=Script(gate=gate, gate_after=1))
    await at.pool.start()
    await at.warm()
    answer = run(text(at.pool))
    await until(lambda: at.made[0].open == 1)
    unloading = run(at.pool.unload(60))
    await until(lambda: at.pool.status().state is ModelState.DRAINING)
    with pytest.raises(Draining, match="`m` is being unloaded"):
        await collect(at.pool)
    assert not unloading.done()
    gate.set()
    assert await answer == "a b c"
    await unloading
    assert at.pool.status().state is ModelState.COLD
    at.move(1e6)
    assert not at.pool._replicas.up  # not even what is to be kept
    again = run(text(at.pool))
    await at.warm(2)
    assert await again == "a b c"
    at.move(1e6)
    assert states(at) == [ModelState.WARM]  # kept again


async def test_an_unload_ends_a_load_and_tells_who_waits(sites: Sites) -> None:
    at = sites()
    waiting = run(collect(at.pool))
    await at.made_one()
    await at.pool.unload(60)
    with pytest.raises(Draining):
        await waiting
    assert at.made[0].stopped
    assert at.pool.status().state is ModelState.COLD


async def test_a_stop_ends_everything_and_nothing_comes_after_it(sites: Sites) -> None:
    at = sites(bounds=KEPT)
    await at.pool.start()
    waiting = run(collect(at.pool))
    await at.made_one()
    await at.pool.stop()
    errors = await asyncio.gather(waiting, return_exceptions=True)
    assert isinstance(errors[0], Draining)
    with pytest.raises(Draining):
        await at.pool.load()


async def test_a_stop_right_after_the_start_leaves_nothing(sites: Sites) -> None:
    at = sites(bounds=KEPT)
    await at.pool.start()
    await at.pool.stop()
    assert at.pool._replicas.slots == []


async def test_tokens_are_counted_by_a_model_that_is_loaded_for_it(sites: Sites) -> None:
    at = sites()
    counting = run(at.pool.count_tokens(CALL))
    await at.warm()
    assert (await counting).prompt_tokens == 3


async def test_callers_who_leave_at_any_time_leave_nothing(sites: Sites) -> None:
    at = sites()
    callers = [run(text(at.pool)) for _ in range(50)]
    replica = await at.made_one()
    for caller in callers[::2]:
        caller.cancel()
    replica.gate.set()
    for _ in range(5):
        await asyncio.sleep(0)
    for caller in callers[1::4]:
        caller.cancel()
    results = await asyncio.gather(*callers, return_exceptions=True)
    assert all(r == "a b c" or isinstance(r, asyncio.CancelledError | PolyrouteError) for r in results)
    assert (at.pool._answering, at.pool._replicas.waiting) == (0, 0)


class Leaving:
    """The departures that a load without memory waits for."""

    def __init__(self) -> None:
        self.asked, self.gone = asyncio.Event(), asyncio.Event()

    async def next(self) -> bool:
        self.asked.set()
        if self.gone.is_set():
            return False
        return await self.gone.wait()


async def test_a_load_without_memory_waits_for_who_leaves_and_evicts_nobody_meanwhile(sites: Sites) -> None:
    memory, leaving = Memory(80 * MIB), Leaving()
    old, idle = small(sites, memory, "old", bounds=KEPT), small(sites, memory, "idle")
    await asyncio.gather(old.pool.start(), old.warm())
    new = small(sites, memory, "new", bounds=KEPT, departure=leaving.next)
    await asyncio.gather(idle.pool.load(), idle.warm())
    await new.pool.start()
    await leaving.asked.wait()
    status = new.pool.status()
    assert (status.state, status.replicas[0].detail) == (ModelState.LOADING, "waiting for memory")
    assert new.made == []
    await old.pool.stop()
    leaving.gone.set()
    await new.warm()
    assert states(idle) == [ModelState.WARM]


async def test_a_load_with_memory_waits_for_nobody_who_leaves(sites: Sites) -> None:
    leaving = Leaving()
    at = sites(departure=leaving.next)
    await asyncio.gather(at.pool.load(), at.warm())
    assert not leaving.asked.is_set()


async def test_a_stop_waits_for_nobody_who_leaves(sites: Sites) -> None:
    memory, leaving = Memory(64 * MIB), Leaving()
    old = small(sites, memory, "old")
    await asyncio.gather(old.pool.load(), old.warm())
    new = small(sites, memory, "new", bounds=KEPT, departure=leaving.next)
    await new.pool.start()
    await leaving.asked.wait()
    await new.pool.stop()
    assert new.made == []


def changed(at: Site, **options: Any) -> LocalConfig:
    return at.pool._config.model_copy(update=options)


async def test_a_reload_keeps_another_number_of_replicas(sites: Sites) -> None:
    at = sites()
    await at.pool.start()
    assert at.pool.status().state is ModelState.COLD
    at.pool.adopt(changed(at, version="v2", warm=WarmConfig(min=2)))
    assert at.pool.status().version == "v2"
    first, second = await at.warm(1), await at.warm(2)
    config = changed(at, warm=WarmConfig(min=0, max=2, idle_unload=60.0), retries=0)
    at.pool.adopt(config)
    assert (first.adopted, second.adopted) == ([config], [config])
    assert states(at) == [ModelState.WARM] * 2  # none leaves before it has been idle
    at.move(61)
    await until(lambda: len(at.pool.status().replicas) == 1)
    assert await text(at.pool) == "a b c"


async def test_a_plan_names_the_replica_without_loading_one(sites: Sites) -> None:
    at = sites()
    await at.pool.start()
    assert at.pool.preview(CALL) == Preview("", "no replica is loaded")
    assert at.made == []
    loading = run(at.pool.load())
    await at.warm()
    await loading
    assert at.pool.preview(CALL).replica == "m#0"
