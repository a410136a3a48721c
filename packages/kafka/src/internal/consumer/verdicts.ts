/** What the processing of a record may answer in place of its handler. Nobody else has these. */

/** The record was stored elsewhere, durably: its offset is done, and its id was not processed. */
export const setAside: unique symbol = Symbol("tidemark: set aside")

/** The record is left undone, since it is no longer ours to process, or its partition is being let go. */
export const undone: unique symbol = Symbol("tidemark: undone")
