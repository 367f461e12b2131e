"""The migrations of this version and the one in this folder, for MIGRATION_MODULES."""

from apps.libraries import migrations

__path__ = [*migrations.__path__, *__path__]
