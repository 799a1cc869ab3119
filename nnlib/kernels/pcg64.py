"""The draws of a NumPy generator, made by all threads: the numbers of ``Generator.random(dtype=np.float32)``, in order.

NumPy's default generator, PCG64, is a congruence s' = a s + c modulo 2^128. Each step gives 64 bits mixed from the new
state; a float32 takes half of them, the lower half first. A congruence can jump: n steps are s' = a_n s + c_n. So each
thread begins where the one before it will end, and the generator is left where it would be had it drawn them all.
Sources: O'Neill 2014 (PCG: a family of simple fast space-efficient statistically good algorithms for random number
generation), section 6.3; Brown 1994 (Random number generation with arbitrary strides).
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from nnlib.functional.checks import Array
from nnlib.kernels.product import part
from nnlib.kernels.runtime import inline

MULTIPLIER = 0x2360ED051FC65DA44385DF649FCCF645
MODULUS, LOW = 1 << 128, (1 << 64) - 1
INVERSE = pow(MULTIPLIER, -1, MODULUS)


def take(rng: np.random.Generator, count: int, unit: int, threads: int) -> tuple[Array, int] | None:
    """Take ``count`` draws from a generator; return what `words` makes them from: ``(states, skipped)``.

    states (threads + 1, 2) uint64: where thread t begins, which draws what `part` gives it (``unit`` is even), and the
    increment c, each in its higher and lower half. skipped: 1 where the lower half of the first 64 bits was drawn
    before, else 0. None for another kind of generator, and for one that was set to a state it cannot come to.
    """
    generator = rng.bit_generator
    with generator.lock:
        known: Any = generator.state
        if known["bit_generator"] != "PCG64":
            return None
        state, increment, skipped = known["state"]["state"], known["state"]["inc"], known["has_uint32"]
        if skipped:
            if known["uinteger"] != mix(state) >> 32:
                return None
            state = (state - increment) * INVERSE % MODULUS
        begins = [jump(state, increment, part.py_func(count, unit, t, threads)[0] // 2) for t in range(threads)]
        if count:
            last = jump(state, increment, (skipped + count + 1) // 2)
            generator.state = {
                **known,
                "state": {"state": last, "inc": increment},
                "has_uint32": (skipped + count) % 2,
                "uinteger": mix(last) >> 32,
            }
    return np.array([(number >> 64, number & LOW) for number in (*begins, increment)], dtype=np.uint64), skipped


def jump(state: int, increment: int, steps: int) -> int:
    """Return the state after so many steps, in as many rounds as their number has bits."""
    factor, term = 1, 0  # of the steps so far: s' = factor s + term
    a, c = MULTIPLIER, increment  # of 1, 2, 4, ... steps
    while steps:
        if steps & 1:
            factor, term = factor * a % MODULUS, (term * a + c) % MODULUS
        a, c = a * a % MODULUS, (a + 1) * c % MODULUS
        steps >>= 1
    return (factor * state + term) % MODULUS


def mix(state: int) -> int:
    """Return the 64 bits that a state gives: its halves' exclusive or, rotated by the highest six bits ("XSL RR")."""
    bits, turn = (state >> 64) ^ (state & LOW), state >> 122
    return (bits >> turn | bits << (64 - turn)) & LOW


@intrinsic
def step(typing, high, low, increment_high, increment_low):
    """Return the state's next halves."""
    signature = types.UniTuple(types.uint64, 2)(*[types.uint64] * 4)

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        half, whole = ir.IntType(64), ir.IntType(128)
        high, low, increment_high, increment_low = (builder.zext(number, whole) for number in arguments)
        state = builder.or_(builder.shl(high, whole(64)), low)
        increment = builder.or_(builder.shl(increment_high, whole(64)), increment_low)
        state = builder.add(builder.mul(state, whole(MULTIPLIER)), increment)
        halves = [builder.trunc(number, half) for number in (builder.lshr(state, whole(64)), state)]
        return context.make_tuple(builder, signature.return_type, halves)

    return signature, emit


@inline
def words(states, high, low, out, first, count):
    """Write the 32 bits of ``count`` draws, one more where that is odd, into out from ``first`` on.

    high, low: the state before them. Returns the state after them.
    """
    increment_high, increment_low = states[-1]
    for i in range(first, first + count, 2):
        high, low = step(high, low, increment_high, increment_low)
        bits, turn = high ^ low, high >> np.uint64(58)
        bits = bits >> turn | bits << (np.uint64(64) - turn & np.uint64(63))
        out[i], out[i + 1] = np.uint32(bits & np.uint64(0xFFFFFFFF)), np.uint32(bits >> np.uint64(32))
    return high, low


@inline
def number(bits):
    """Return the float32 in [0, 1) that NumPy makes of 32 bits: their first 24."""
    return np.float32(bits >> np.uint32(8)) * np.float32(2.0**-24)
