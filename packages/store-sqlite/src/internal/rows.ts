import type { SQLInputValue, StatementSync } from "node:sqlite"

/** The rows of a statement, which has said what they are. */
export const rowsOf = <Row>(
  statement: StatementSync,
  ...values: ReadonlyArray<SQLInputValue>
): ReadonlyArray<Row> => statement.all(...values) as unknown as ReadonlyArray<Row>
