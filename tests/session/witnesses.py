"""For each mutant the shortest program with which the machine finds it: a table of what it is able to notice.

Hypothesis found the programs (`python -m tests.session`), and they were cut down. They are kept because the programs of
a search depend on all that is imported: a mutant that was found today may survive tomorrow, with nothing changed.
"""

from collections.abc import Callable
from dataclasses import dataclass

from . import mutants
from .machine import Draft, SessionMachine
from .mutants import Mutation
from .searching import machine_of, small

Step = Callable[[SessionMachine], None]

PLAIN = Draft()
ONE, MANY, KEYED, KNOWN = Draft("One"), Draft("Many"), Draft("Keyed 1"), Draft("Known")


def sends(*drafts: Draft, then: str = "run") -> Step:
    return lambda machine: machine.go_on(sends=drafts, then=then)


def trouble(what: str) -> Step:
    return lambda machine: machine.trouble(sends=[], what=what, then="run")


def mends(*what: str, then: str = "run") -> Step:
    return lambda machine: machine.mend(sends=[], what=what, then=then)


def kill(*drafts: Draft, boundaries: int = 0) -> Step:
    return lambda machine: machine.kill(sends=drafts, boundaries=boundaries, then="run")


def stop(*drafts: Draft, then: str = "run") -> Step:
    return lambda machine: machine.stop(sends=drafts, then=then)


def cut(then: str = "run") -> Step:
    return lambda machine: machine.cut(sends=[], then=then)


def release() -> Step:
    return lambda machine: machine.release(sends=[], everything=True, then="run")


@dataclass(frozen=True)
class Mutant:
    """A mistake; what has to happen for it to show, and to which kind of plugin, on which kind of broker."""

    mutate: Mutation
    program: tuple[Step, ...]
    journal: bool = True
    keeps: bool = True

    def play(self) -> None:
        """Run the program.

        Raises:
            Broken: A promise was broken.
        """
        with small():
            machine = machine_of(journal=self.journal, keeps=self.keeps)()
            try:
                machine.begin()
                for step in self.program:
                    step(machine)
            finally:
                machine.teardown()


MUTANTS = {
    "acknowledged on the connection that is there": Mutant(
        mutants.wrong_connection, (sends(Draft(waits="hang")), cut(then="wait"), release()), journal=False
    ),
    "acknowledged before the commit": Mutant(mutants.before_the_commit, (sends(PLAIN),)),
    "acknowledged before the handler": Mutant(mutants.before_the_handler, (sends(PLAIN),), journal=False),
    "never acknowledged": Mutant(mutants.never, (sends(PLAIN),)),
    "a repetition of what is in memory alone is acknowledged at once": Mutant(
        mutants.a_repetition_at_once, (sends(Draft("Many", waits="hang")), cut(then="wait")), journal=False
    ),
    "receive raises": Mutant(mutants.raising_receive, (sends(PLAIN, PLAIN),)),
    "what waits is handled, and handled again when it is sent again": Mutant(
        mutants.waiting_ones_handled_twice,
        (sends(Draft(waits="hang"), PLAIN), cut(then="wait"), release()),
        journal=False,
    ),
    "what is put off and sent again is taken for a repetition": Mutant(
        mutants.postponed_ones_still_known, (sends(Draft("Known", ends="retry")), cut(), cut()), journal=False
    ),
    "done in a commit without the answer": Mutant(
        mutants.done_without_the_answer, (trouble("mute"), sends(ONE), kill())
    ),
    "what could not be written is written later, without the answer": Mutant(
        mutants.written_later_without_the_answer,
        (
            sends(Draft("One", waits="hang")),
            trouble("mute"),
            trouble("disk"),
            release(),
            mends("disk", then="wait"),
            kill(),
        ),
    ),
    "an answer before the handler's end is in memory alone": Mutant(
        mutants.early_answer_in_memory_alone, (trouble("mute"), sends(Draft("Many", ends="early")), kill())
    ),
    "an answer is forgotten when it is sent": Mutant(
        mutants.answer_forgotten_when_it_is_sent, (trouble("mute"), sends(MANY), cut())
    ),
    "a failure leaves no dead letter": Mutant(mutants.failures_without_a_letter, (sends(Draft(ends="misfit")),)),
    "deferred is done": Mutant(mutants.deferred_ones_are_done, (sends(Draft("Many", ends="defer")),)),
    "another ticket at each delivery": Mutant(
        mutants.another_ticket, (sends(Draft("Many", waits="hang", ends="early")), stop())
    ),
    "replayed backwards": Mutant(mutants.replayed_backwards, (kill(boundaries=2), sends(KEYED, KEYED))),
    "what is done stays in the journal": Mutant(mutants.finished_ones_stay, (sends(PLAIN),)),
    "what is done is written when something else is": Mutant(mutants.ends_wait_for_others, (sends(PLAIN), kill())),
    "what does not fit in memory is skipped": Mutant(
        mutants.spilled_ones_are_skipped, (sends(Draft("One", ends="retry"), ONE), sends(ONE), sends(ONE, ONE))
    ),
    "given up after one delivery": Mutant(mutants.waiting_counts_as_a_delivery, (stop(then="nothing"), stop(PLAIN))),
    "a repetition by its content": Mutant(mutants.dropped_by_content, (sends(KEYED), sends(KEYED))),
    "a repetition of what failed": Mutant(
        mutants.failed_ones_still_known, (sends(Draft("Known", ends="flaky")), sends(Draft("Known", name="same")))
    ),
    "put off, and passed by others": Mutant(
        mutants.postponed_ones_lose_their_place, (sends(Draft("One", ends="retry")), sends(ONE))
    ),
}
