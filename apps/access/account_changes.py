"""Changes of users and groups in the audit trail, whoever makes them: pages of the admin are Django's own."""

from typing import Any

from django.contrib.auth.models import Group, User
from django.db import transaction
from django.db.models.signals import m2m_changed, post_delete, post_save

from apps.access.audit import record_change


def connect() -> None:
    """Connect the receivers; called once, when the apps are ready."""
    # Else a user, unlike a group, is saved outside of a transaction where a password is changed, and its entry could be
    # missing.
    User.add_to_class("save", transaction.atomic(User.save))
    post_save.connect(_after_save_of_user, sender=User)
    post_save.connect(_after_save_of_group, sender=Group)
    post_delete.connect(_after_delete_of_user, sender=User)
    post_delete.connect(_after_delete_of_group, sender=Group)
    for relation in (User.groups, User.user_permissions, Group.permissions):
        m2m_changed.connect(_after_change_of_relation, sender=relation.through)


def _after_save_of_user(instance: User, created: bool, update_fields: frozenset[str] | None, **_: Any) -> None:
    if created:
        record_change("create_user", target=instance.username)
    elif not _is_login(instance, update_fields):
        record_change("update_user", target=instance.username)


def _is_login(user: User, update_fields: frozenset[str] | None) -> bool:
    """Whether a save is what a login does: it notes the time, and hashes the same password again where that was done
    with fewer rounds, by an older version of Django."""
    # Django keeps a new password in `_password` until it is saved, but not one that it hashes again.
    is_hashed_again = update_fields == frozenset(["password"]) and user._password is None  # type: ignore[attr-defined]
    return update_fields == frozenset(["last_login"]) or is_hashed_again


def _after_save_of_group(instance: Group, created: bool, **_: Any) -> None:
    if created:
        record_change("create_group", target=instance.name)
    else:
        record_change("update_group", target=instance.name)


def _after_delete_of_user(instance: User, **_: Any) -> None:
    record_change("delete_user", target=instance.username)


def _after_delete_of_group(instance: Group, **_: Any) -> None:
    record_change("delete_group", target=instance.name)


def _after_change_of_relation(instance: Any, action: str, pk_set: set[int] | None, **_: Any) -> None:
    """Record a change of memberships or permissions, with how many were given or taken; unknown where all were."""
    if not action.startswith("post_") or pk_set == set():
        return
    count = None if pk_set is None else len(pk_set)
    if isinstance(instance, User):
        record_change("update_user", target=instance.username, count=count)
    elif isinstance(instance, Group):
        record_change("update_group", target=instance.name, count=count)
