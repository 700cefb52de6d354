"""Einsums with one operand that is data, against numpy's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cases import SEEDS, numbers
from reference import forward
from relprop import graph as g
from relprop.frontends.conversion import Unsupported
from relprop.frontends.einsum import Product, lower, matmul_equation, multiply, with_own_matrices


def assert_same(equation: str, operands: list[g.Array], data: int = 0) -> list[g.Operator]:
    """The operators do to the data what einsum does; returns them."""
    shape = operands[data].shape[1:]
    graph = g.Graph()
    name = graph.add("input", g.Input(shape))
    given_ = [shape if i == data else operand for i, operand in enumerate(operands)]
    operators = lower(equation, given_)
    for i, operator in enumerate(operators):
        name = graph.add(str(i), operator, [name])
    result = forward(graph, operands[data])[name]
    wanted = np.einsum(equation, *(operand.astype(np.float64) for operand in operands))
    np.testing.assert_allclose(result, wanted, rtol=1e-6, atol=1e-6 * abs(wanted).max(initial=0))
    return operators


SIZES = dict(zip("nabcdefgh", (2, 3, 4, 1, 5, 2, 3, 1, 2)))


@given(data=st.data(), seed=SEEDS)
@settings(max_examples=200, deadline=None)
def test_any_linear_map(data, seed) -> None:
    letters = data.draw(st.permutations("abcdefgh"))
    rest, summed, new = (
        letters[3 * i : 3 * i + data.draw(st.integers(0, 3 if i < 2 else 2))] for i in range(3)
    )
    if not (rest or summed):
        return
    x = "n" + "".join(data.draw(st.permutations(rest + summed)))
    w = "".join(data.draw(st.permutations(summed + new)))
    out = "n" + "".join(data.draw(st.permutations(rest + new)))
    rng = np.random.default_rng(seed)
    first, second = (numbers(rng, tuple(SIZES[c] for c in term)) for term in (x, w))
    if data.draw(st.booleans()):
        assert_same(f"{x},{w}->{out}", [first, second])
    else:
        assert_same(f"{w},{x}->{out}", [second, first], data=1)


@given(
    data=st.data(),
    leading=st.lists(st.integers(1, 3), max_size=3),
    sizes=st.tuples(*[st.integers(1, 4)] * 3),
    seed=SEEDS,
)
@settings(max_examples=80, deadline=None)
def test_any_matrix_product(data, leading, sizes, seed) -> None:
    m, k, p = sizes
    rng = np.random.default_rng(seed)
    first = data.draw(st.booleans())
    vector = data.draw(st.booleans())
    matrix = numbers(rng, (k,) if vector else (k, p) if first else (m, k))
    if leading and not vector and data.draw(st.booleans()):
        matrix = matrix[None]
    x = numbers(rng, (2, *leading, m, k) if first else (2, *leading, k, p))
    operands = [x, matrix] if first else [matrix, x]
    equation = matmul_equation(*(operand.ndim for operand in operands))
    shape = x.shape[1:]
    given_ = [shape, matrix] if first else [matrix, shape]
    graph = g.Graph()
    name = graph.add("input", g.Input(shape))
    for i, operator in enumerate(lower(equation, given_)):
        name = graph.add(str(i), operator, [name])
    wanted = np.matmul(*(operand.astype(np.float64) for operand in operands))
    np.testing.assert_allclose(forward(graph, x)[name], wanted, rtol=1e-6, atol=1e-6)


def test_what_is_a_dense_layer_is_one() -> None:
    x, w = np.ones((2, 3, 4), np.float32), np.ones((4, 5), np.float32)
    assert [type(o) for o in assert_same("ntc,cd->ntd", [x, w])] == [g.Dense]
    assert [type(o) for o in assert_same("...c,cd", [x, w])] == [g.Dense]
    assert [type(o) for o in assert_same("ntc->nct", [x])] == [g.Permute]
    assert [type(o) for o in assert_same("nt c , c d -> n d t", [x, w])] == [g.Dense, g.Permute]


def test_several_constants_are_one_weight() -> None:
    rng = np.random.default_rng(0)
    x, u, v = numbers(rng, (2, 3, 4)), numbers(rng, (4, 5)), numbers(rng, (5, 6, 7))
    operators = assert_same("ntc,ck,kde->nted", [x, u, v])
    assert sum(isinstance(o, g.Dense) for o in operators) == 1


def test_an_axis_of_one_goes_with_any_size() -> None:
    x, w = np.ones((2, 3, 4), np.float32), np.ones((1, 4, 5), np.float32)
    operators = lower("ntc,ncd->ntd", [(3, 4), w])
    assert operators[0].infer_shape(x.shape[1:]) == (3, 5)


@pytest.mark.parametrize(
    ("equation", "shapes", "reason"),
    [
        ("ntt,td->nd", [(3, 3), (3, 2)], "twice"),
        ("ntc,tc->nt", [(3, 4), (3, 4)], "'t' is data's and a constant's"),
        ("ntc,c->ntc", [(3, 4), (4,)], "'c' is data's and a constant's"),
        ("ntc,cd->nd", [(3, 4), (4, 2)], "'t' is summed over without"),
        ("ntc,cd->tnd", [(3, 4), (4, 2)], "batch axis"),
        ("ntc,nd->ntd", [(3, 4), (2, 2)], "batch axis"),
        ("ntc,cd->td", [(3, 4), (4, 2)], "batch axis"),
        ("ab,cd,ef,gh->abcdefgh", [(2,), *[(99, 99)] * 3], "too large to become one"),
        ("ab,cd,ef,gh->ab", [(2,), *[(99, 99)] * 3], "too large to become one"),
    ],
)
def test_what_is_no_linear_map(equation: str, shapes: list[g.Shape], reason: str) -> None:
    operands = [shapes[0], *(np.ones(shape, np.float32) for shape in shapes[1:])]
    with pytest.raises(Unsupported, match=reason):
        lower(equation, operands)


def test_a_product_beyond_float32() -> None:
    large = np.full((2, 2), 1e30, np.float32)
    with pytest.raises(ValueError, match="more than float32 holds"):
        lower("na,ab,bc->nc", [(2,), large, large])


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("ntc,cd->ntd", [(3, 4)]),
        ("ntc,cd->ntd", [(3, 4), (5, 2)]),
        ("nt,cd->ntd", [(3, 4), (4, 2)]),
        ("ntce,cd->ntd", [(3, 4), (4, 2)]),
        ("ntc,cd->ntx", [(3, 4), (4, 2)]),
        ("nt1,cd->ntd", [(3, 4), (4, 2)]),
        ("....c,cd->ntd", [(3, 4), (4, 2)]),
        ("", [(3, 4)]),
    ],
)
def test_what_is_no_equation(equation: str, shapes: list[g.Shape]) -> None:
    operands = [shapes[0], *(np.ones(shape, np.float32) for shape in shapes[1:])]
    with pytest.raises(ValueError, match=r"."):
        lower(equation, operands)


# --- Two operands that are data ----------------------------------------------------------------


def assert_product(equation: str, operands: list[g.Array], merged: g.Shape = ()) -> Product:
    """The operators do to both what einsum does, with axes behind the batch that it counts in."""
    graph, names = g.Graph(), []
    steps = multiply(equation, [operand.shape[1:] for operand in operands], merged)
    for i, (operand, moves) in enumerate(zip(operands, (steps.left, steps.right))):
        name = graph.add(f"x{i}", g.Input(operand.shape[1:]))
        for k, move in enumerate(moves):
            name = graph.add(f"{i}.{k}", move, [name])
        names.append(name)
    name = graph.add("product", steps.product, names)
    for k, move in enumerate(steps.behind):
        name = graph.add(f"behind.{k}", move, [name])
    result = forward(graph, {f"x{i}": operand for i, operand in enumerate(operands)})[name]
    flat = [o.reshape(-1, *o.shape[1 + len(merged) :]).astype(np.float64) for o in operands]
    wanted = np.einsum(equation, *flat)
    assert result.shape[1 + len(merged) :] == wanted.shape[1:]
    scale = 1e-6 * abs(wanted).max(initial=0)
    np.testing.assert_allclose(result.reshape(wanted.shape), wanted, rtol=1e-6, atol=scale)
    return steps


@given(data=st.data(), seed=SEEDS, merged=st.sampled_from([(), (3,), (2, 3)]))
@settings(max_examples=150, deadline=None)
def test_any_product_of_two(data, seed, merged) -> None:
    letters = data.draw(st.permutations("abcdefgh"))
    outer, summed, rows, columns = (
        letters[2 * i : 2 * i + data.draw(st.integers(0, 2))] for i in range(4)
    )
    x = "n" + "".join(data.draw(st.permutations(outer + summed + rows)))
    y = "n" + "".join(data.draw(st.permutations(outer + summed + columns)))
    out = "n" + "".join(data.draw(st.permutations(outer + rows + columns)))
    rng = np.random.default_rng(seed)
    operands = [numbers(rng, (2, *merged, *(SIZES[c] for c in term[1:]))) for term in (x, y)]
    assert_product(f"{x},{y}->{out}", operands, merged)


def test_a_product_moves_no_more_than_it_must() -> None:
    q, k = (np.ones((2, 3, size, 4), np.float32) for size in (5, 6))
    steps = assert_product("bhqd,bhkd->bhqk", [q, k])
    assert not (steps.left or steps.right or steps.behind)
    assert steps.product.transposed
    steps = assert_product("bhqk,bhkd->bhqd", [np.ones((2, 3, 5, 6), np.float32), k])
    assert not (steps.left or steps.right or steps.behind or steps.product.transposed)


def test_an_axis_of_one_of_a_branch_goes_with_any_size() -> None:
    rng = np.random.default_rng(0)
    assert_product("nij,nij->ni", [numbers(rng, (2, 3, 4)), numbers(rng, (2, 1, 4))])
    assert_product("nhqd,nhkd->nhqk", [numbers(rng, (2, 1, 5, 4)), numbers(rng, (2, 3, 6, 4))])


@pytest.mark.parametrize(
    ("equation", "reason"),
    [
        ("nij,mij->nm", "batch axis"),
        ("nij,nij->i", "batch axis"),
        ("nij,nij->in", "batch axis"),
        ("nij,nkl->nik", "'j' is summed over in one operand alone"),
        ("nii,nij->nj", "twice"),
    ],
)
def test_what_is_no_product_of_two(equation: str, reason: str) -> None:
    with pytest.raises(Unsupported, match=reason):
        multiply(equation, [(3, 3), (3, 3)])


def test_a_product_whose_sizes_differ() -> None:
    with pytest.raises(ValueError, match="'j' is of sizes 4 and 5"):
        multiply("nij,nkj->nik", [(3, 4), (3, 5)])


@given(data=st.data(), seed=SEEDS)
@settings(max_examples=100, deadline=None)
def test_any_constant_with_matrices_of_its_own(data, seed) -> None:
    letters = data.draw(st.permutations("abcdefgh"))
    outer, summed, rows, columns = (
        letters[2 * i : 2 * i + data.draw(st.integers(0, 2))] for i in range(4)
    )
    x = "n" + "".join(data.draw(st.permutations(outer + summed + rows)))
    w = "".join(data.draw(st.permutations(outer + summed + columns)))
    out = "n" + "".join(data.draw(st.permutations(outer + rows + columns)))
    rng = np.random.default_rng(seed)
    shapes = [tuple(SIZES[c] for c in term) for term in (x, w)]
    branch, matrices = (numbers(rng, shape) for shape in shapes)
    first = data.draw(st.booleans())
    terms, parts = (x, w), [branch.shape[1:], matrices]
    if not first:
        terms, parts = terms[::-1], parts[::-1]
    equation = with_own_matrices(f"{','.join(terms)}->{out}", parts)
    own = any(SIZES[c] > 1 for c in outer)
    assert (equation is not None) == own
    if equation is not None:
        both = [branch, np.broadcast_to(matrices, (2, *matrices.shape))]
        assert_product(equation, both if first else both[::-1])


def test_a_constant_with_a_matrix_for_each_sample_is_refused() -> None:
    assert with_own_matrices("nhc,nhd->nhd", [(3, 4), np.ones((2, 3, 5))]) is None
