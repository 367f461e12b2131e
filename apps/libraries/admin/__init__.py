"""The admin: libraries, documents and chunks, to look at, to correct and to delete.

forms     what a person types, under the API's rules
filters   which rows of a list are shown
locking   writing as the services do
deletion  deleting without loading what goes along
pages     the pages
"""

from apps.libraries.admin import pages

__all__ = ["pages"]
