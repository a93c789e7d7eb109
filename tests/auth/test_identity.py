"""What a user may do where: names, beginnings, roles (PROTOCOL section 1)."""

from __future__ import annotations

import pytest

from tornado_rt.auth import Identity


@pytest.mark.parametrize(
    ("dashboard", "role"),
    [
        ("sales", "editor"),
        ("sales-eu", None),
        ("Sales", None),
        ("ops-", "viewer"),
        ("ops-1", "viewer"),
        ("ops-db", "admin"),
        ("ops-db-1", "editor"),
        ("ops", None),
        ("an*b", "viewer"),
        ("anxb", None),
        ("", None),
    ],
)
def test_the_exact_name_counts_before_the_longest_beginning(dashboard: str, role: str | None) -> None:
    roles = {"ops-*": "viewer", "ops-db*": "editor", "ops-db": "admin", "sales": "editor", "an*b": "viewer"}
    assert Identity("anna", roles).role_on(dashboard) == role
    assert Identity("anna", dict(reversed(roles.items()))).role_on(dashboard) == role


def test_a_star_alone_is_every_dashboard_and_the_weakest() -> None:
    anna = Identity("anna", {"*": "admin", "pay*": "viewer"})
    assert anna.permissions_on("any") == ("read", "write", "admin")
    assert anna.permissions_on("payroll") == ("read",)
    assert anna.permissions_on("*") == ("read", "write", "admin")


def test_a_dashboard_with_a_star_in_its_name_is_under_its_longest_beginning() -> None:
    assert Identity("anna", {"ops-*": "viewer", "ops-**": "editor"}).role_on("ops-*") == "editor"


@pytest.mark.parametrize(
    ("role", "permissions"), [("viewer", ("read",)), ("editor", ("read", "write")), ("admin", ("read", "write", "admin"))]
)
def test_roles(role: str, permissions: tuple[str, ...]) -> None:
    assert Identity("anna", {"sales": role}).permissions_on("sales") == permissions
    assert Identity("anna", {"sales": role}).permissions_on("other") == ()


def test_an_admin_of_the_server_is_admin_of_every_dashboard() -> None:
    assert Identity("anna", {"*": "admin"}).is_admin
    for roles in ({"*": "editor", "sales": "admin"}, {"s*": "admin"}, {}):
        assert not Identity("anna", roles).is_admin
