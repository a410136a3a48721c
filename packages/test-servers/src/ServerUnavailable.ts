/**
 * No way of the ladder leads to a server of this kind on this machine. It is not a failure of the code under
 * test: tests that need the server are reported as NOT RUN, unless `TIDEMARK_REQUIRE` names it.
 */
export class ServerUnavailable extends Error {
  override readonly name = "ServerUnavailable"
  /** The kind of server, in capitals: `KAFKA`. */
  readonly server: string
  /** Why each way failed, in the order in which a person would mend them. */
  readonly reasons: ReadonlyArray<string>

  constructor(server: string, reasons: ReadonlyArray<string>) {
    super(`${server} (${reasons.join(", ")})`)
    this.server = server
    this.reasons = reasons
  }
}
