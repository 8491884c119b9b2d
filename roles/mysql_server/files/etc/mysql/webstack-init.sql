-- mysqld runs this at each start, read-only or not. The account exists on this node alone: it is not replicated.
SET SESSION sql_log_bin = OFF;
CREATE USER IF NOT EXISTS mysqlstate@localhost IDENTIFIED WITH auth_socket;
GRANT SELECT ON performance_schema.replication_applier_status TO mysqlstate@localhost;
GRANT SELECT ON performance_schema.replication_applier_status_by_coordinator TO mysqlstate@localhost;
GRANT SELECT ON performance_schema.replication_applier_status_by_worker TO mysqlstate@localhost;
GRANT SELECT ON performance_schema.replication_connection_configuration TO mysqlstate@localhost;
GRANT SELECT ON performance_schema.replication_connection_status TO mysqlstate@localhost;
GRANT SELECT ON performance_schema.replication_group_members TO mysqlstate@localhost;
