"""Tells this process's caches that a library was written to, after the commit.

Only speed rests on this: every query reads the library's revision first, so a write that sends nothing (another
process, raw SQL, bulk calls) is seen all the same. There is no receiver on the deletion of chunks: it would make
Django load every text and vector of a library to delete it.
"""

from functools import partial
from typing import Any

from django.apps import apps
from django.db import transaction
from django.db.backends.signals import connection_created
from django.db.models.signals import post_delete, post_migrate, post_save, pre_migrate
from django.dispatch import Signal

from apps.libraries.dialects import drop_triggers, install_triggers, prepare_connection

# Sent with `library_key`, an integer.
library_changed = Signal()
library_deleted = Signal()


def announce(library_key: int) -> None:
    """Send `library_changed` when the current transaction has committed."""
    transaction.on_commit(partial(library_changed.send_robust, None, library_key=library_key))


def connect() -> None:
    """Connect the receivers; called once, when the apps are ready."""
    config = apps.get_app_config("libraries")
    connection_created.connect(prepare_connection, dispatch_uid="libraries.prepare_connection")
    pre_migrate.connect(drop_triggers, sender=config)
    post_migrate.connect(install_triggers, sender=config)
    post_save.connect(_after_save, sender=config.get_model("Library"))
    post_save.connect(_after_save, sender=config.get_model("Chunk"))
    post_delete.connect(_after_library_delete, sender=config.get_model("Library"))


def _after_save(instance: Any, **kwargs: Any) -> None:
    announce(instance.pk if instance._meta.model_name == "library" else instance.library_id)


def _after_library_delete(instance: Any, **kwargs: Any) -> None:
    transaction.on_commit(partial(library_deleted.send_robust, None, library_key=instance.pk))
