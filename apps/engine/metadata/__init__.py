"""The attributes of rows, column by column, so that a filter over them is a few vector operations.

paths        the paths of fields, and their names
instants     texts that are dates, as instants
operands     operands of the filter language, read to keys
filters      the filter language, read to a small tree
filter_json  that tree as JSON, for another process
texts        conditions on the texts of rows, which are in no column
values       a value as a byte string, so that equal values have equal ones and ordered values ordered ones
layout       the flat arrays, in memory or mapped from files
building     the columns of rows
assembly     those arrays from columns, or from those of other blocks
table        Columns: masks of the rows that match a filter
by_row       what a few hundred rows have in a column
facets       the number of rows that have each value of a field
ordering     rows by the values of fields
summaries    the types of the values of a field, and the least and the greatest of each
"""

from apps.engine.metadata.building import Attributes
from apps.engine.metadata.table import Columns

__all__ = ["Attributes", "Columns"]
