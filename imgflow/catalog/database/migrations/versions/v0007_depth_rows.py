"""A function that finds the chunks of a depth interval, planned once per connection."""

from alembic import op
from sqlalchemy import text

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

# Planning the statement took 0.2 of 0.55 ms for 500 rows of 1,000,000. Only a function keeps a plan
# under COPY, and the planner would not keep it automatically, although it is the same for all
# parameters. Chunks ascend, so the first one that ends above the interval is the last one that may
# touch it: without that bound, the index would be read to the end of the array.
STATEMENT = """
CREATE FUNCTION depth_rows(
    of_source text, of_id bigint, of_key text, low double precision, high double precision,
    most_rows bigint, most_pixels bigint, chunk_rows integer
) RETURNS TABLE (
    image_id bigint, "array" text, value_range text, depths bytea, pixels bytea
) LANGUAGE plpgsql STABLE SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    WITH shown AS MATERIALIZED (
        SELECT i.id, i.outputs -> 'resized' ->> 'name' AS name,
            i.outputs #>> '{resized,facts,value_range}' AS value_range,
            CAST(i.outputs -> 'resized' ->> 'width' AS bigint) AS width
        FROM images AS i
        WHERE i.id = coalesce(
                of_id, (SELECT k.id FROM images AS k WHERE k.source = of_source AND k.key = of_key)
            )
            AND i.source = coalesce(of_source, i.source) AND i.kind = 'depth'
            AND i.state <> 'deleted'
    )
    SELECT s.id, s.name, s.value_range, c.depths, c.pixels
    FROM shown AS s JOIN depth_chunks AS c ON c.image_id = s.id AND c."array" = s.name
    WHERE c.depth_max >= low AND c.depth_min <= high AND c.depth_max <= coalesce(
        (
            SELECT n.depth_max FROM depth_chunks AS n
            WHERE n.image_id = s.id AND n."array" = s.name AND n.depth_max > high
            ORDER BY n.depth_max LIMIT 1
        ),
        'Infinity'
    )
    ORDER BY c.chunk
    LIMIT (SELECT least(most_rows, most_pixels / s.width) / chunk_rows + 3 FROM shown AS s);
END
$$
"""


def upgrade() -> None:
    """Create the function."""
    op.execute(text(STATEMENT))
