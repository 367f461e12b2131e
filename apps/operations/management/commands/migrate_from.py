"""`manage.py migrate_from`: collections of another vector database into libraries."""

from argparse import RawDescriptionHelpFormatter
from dataclasses import asdict
from typing import Any

from django.core.management.base import CommandError, CommandParser
from tqdm import tqdm

from apps.embeddings.errors import EmbeddingError
from apps.engine.metrics import Metric
from apps.libraries.errors import LibraryError
from apps.operations.management.base import INTERRUPTED, AuditedCommand, one_sentence_errors, rows_refused
from apps.transfer.errors import TransferError
from apps.transfer.importing import Report
from apps.transfer.job_context import JobCancelled
from apps.transfer.migrating import Plan, find_job, migrate, open_source, plan, running_migration, source_errors
from apps.transfer.migration_check import Comparison, compare
from apps.transfer.sources import SOURCES
from apps.transfer.sources.base import Fields, VectorSource

_LOCATIONS = """\
SOURCE and LOCATION:
  chroma    the folder of a PersistentClient, or http://host:8000 (CHROMA_API_KEY)
  qdrant    http://host:6333 (QDRANT_API_KEY), a folder of qdrant-client or Qdrant Edge, or a snapshot
  pgvector  postgresql://user@host/database; collections are tables with a vector column
  lancedb   a folder, or s3://bucket/path; collections are tables
  faiss     the file of an index; --rows names the file of its rows
docs/migrate.md tells what becomes of ids, texts and metadata."""


class Command(AuditedCommand):
    help = (
        "Migrate collections of another vector database into libraries. Run it again after it was cut off: it goes on "
        "where it was. At the end, counts, ids, some rows and answers are compared with the source.\n\n" + _LOCATIONS
    )

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        return super().create_parser(prog_name, subcommand, formatter_class=RawDescriptionHelpFormatter, **kwargs)

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("source", choices=list(SOURCES), metavar="SOURCE", help=", ".join(SOURCES))
        parser.add_argument("location", metavar="LOCATION", help="see below")
        parser.add_argument("--collection", action="append", help="one to migrate, all if none is named; repeatable")
        parser.add_argument("--library", help="id of the library for the one collection; its name if left out")
        parser.add_argument("--text", default="text", help="field or column with the text (not chroma): %(default)s")
        parser.add_argument("--id", help="column or field with the id (pgvector, lancedb, faiss)")
        parser.add_argument("--vector", help="column or name of the vector, where there are several")
        parser.add_argument("--metadata", help="field or column whose object's keys become metadata themselves")
        parser.add_argument("--rows", help="file of JSON or of lines of JSON (faiss)")
        metrics = [one.value for one in Metric]
        parser.add_argument("--metric", choices=metrics, help="how vectors are compared, if not as the source says")
        parser.add_argument(
            "--mode", choices=["upsert", "insert", "skip"], default="upsert", help="what to do with ids in use"
        )
        parser.add_argument("--sample", type=int, default=100, help="rows and queries to compare: %(default)s")
        parser.add_argument("--restart", action="store_true", help="begin again where an earlier run was cut off")
        parser.add_argument("--dry-run", action="store_true", help="say what would be done, and write nothing")

    @one_sentence_errors()
    def handle(self, *args: Any, **options: Any) -> None:
        fields = Fields(options["id"], options["text"], options["vector"], options["metadata"], options["rows"])
        try:
            source = open_source(options["source"], options["location"], fields)
            try:
                plans = self._plans(source, fields, options)
                for one in plans:
                    self.stdout.write(_describe(one))
                if not options["dry_run"]:
                    done = [self._migrate(one, options) for one in plans]
                    if not all(comparison.is_fine for _, comparison in done):
                        raise CommandError("Not all is as in the source.")
                    if refused := sum(report.refused for report, _ in done):
                        raise CommandError(
                            f"{rows_refused(refused)}, and so not migrated; all else is as in the source."
                        )
            finally:
                source.close()
        except JobCancelled:
            raise CommandError("It was cancelled. What was written by then stays.") from None
        except (TransferError, LibraryError, EmbeddingError) as error:
            raise CommandError(getattr(error, "detail", str(error))) from error
        except KeyboardInterrupt:
            raise CommandError("Stopped. The same command goes on where it was.", returncode=INTERRUPTED) from None

    def _plans(self, source: VectorSource, fields: Fields, options: dict[str, Any]) -> list[Plan]:
        with source_errors(source.place):
            there_are = source.names()
        names = options["collection"] or there_are
        if unknown := [name for name in names if name not in there_are]:
            raise CommandError(f"There is no collection {unknown[0]!r}; there are: {', '.join(there_are)}.")
        if options["library"] and len(names) != 1:
            raise CommandError(f"--library is for one collection; name it by --collection: {', '.join(there_are)}.")
        if not names:
            raise CommandError(f"{source.place} has no collections.")
        return [
            plan(
                source,
                options["source"],
                name,
                fields=fields,
                library_id=options["library"],
                metric=options["metric"],
            )
            for name in names
        ]

    def _migrate(self, plan: Plan, options: dict[str, Any]) -> tuple[Report, Comparison]:
        with running_migration(plan, restart=options["restart"]) as job:
            total, done = plan.collection.count, job.done
            with tqdm(total=total, initial=done, desc=plan.library_id, unit="row", disable=None) as bar:

                def show(done: int) -> None:
                    bar.update(done - bar.n)

                migrated = migrate(plan, job, mode=options["mode"], sample=options["sample"], show=show)
            found = compare(plan, migrated)
            self.stdout.write(_tell(plan, migrated.report, found))
            job.result = {"report": migrated.report.data(), "comparison": asdict(found)}
            return migrated.report, found


def _describe(plan: Plan) -> str:
    """What is to happen to a collection."""
    collection, job = plan.collection, find_job(plan)
    parts = [
        f"{collection.name}: {collection.count} rows",
        f"dimension {collection.dimension}",
        f"compared by {plan.library['metric']}",
        f"into the {'library' if plan.exists else 'new library'} {plan.library_id}",
    ]
    return ", ".join(parts) + (f"; goes on behind {job.done} rows" if job is not None and job.done else "")


def _tell(plan: Plan, report: Report, found: Comparison) -> str:
    """What became of a collection."""
    lines = [
        f"{plan.library_id}: {report.created} created, {report.updated} updated, {report.left} left as they were, "
        f"{report.refused} refused"
    ]
    lines += [f"  refused {one['at']}: {one['errors'][0]['detail']}" for one in report.refusals[:10]]
    lines.append(
        f"  compared: {found.rows} rows, of which {found.different} differ; {found.queries} queries, of which "
        f"{found.worse} have a farther and {found.better} a nearer row than the source's answer; {found.ids} ids, of "
        f"which {found.missing} are not there"
    )
    lines += [f"  {one}" for one in found.differences]
    return "\n".join(lines)
