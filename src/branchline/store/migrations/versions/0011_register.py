"""The register: chained, and written by way of `register.incoming`; `audit_event` is a view for older versions."""

from alembic import op
from sqlalchemy import text

from branchline.store.register_schema import EXISTS, KEEPER, MAKE

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    connection = op.get_bind()
    op.execute("LOCK TABLE audit_event IN ACCESS EXCLUSIVE MODE")  # what is written from here on comes by the view
    if connection.execute(text(EXISTS)).scalar():
        op.execute(f"GRANT SELECT ON audit_event TO {KEEPER}")
    else:
        op.execute("CREATE SCHEMA register")
        for statement in MAKE:
            connection.exec_driver_sql(statement)
    op.execute("SELECT register.take_along()")
    op.execute("SET CONSTRAINTS ALL IMMEDIATE")  # the chain's first own row, before the table that is altered here goes
    op.drop_table("audit_event")
    op.execute(
        "CREATE VIEW audit_event AS"
        " SELECT seq AS id, at, kind, actor, project, environment, deployment, detail, proof, source"
        " FROM register.event"
    )
    op.execute(
        "CREATE FUNCTION add_audit_event() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " INSERT INTO register.incoming (kind, actor, project, environment, deployment, detail, proof, source)"
        " VALUES (NEW.kind, NEW.actor, NEW.project, NEW.environment, NEW.deployment, NEW.detail,"
        " coalesce(NEW.proof, ''), coalesce(NEW.source, ''));"
        " RETURN NEW; END $$"
    )
    op.execute(
        "CREATE TRIGGER add_audit_event INSTEAD OF INSERT ON audit_event"
        " FOR EACH ROW EXECUTE FUNCTION add_audit_event()"
    )
