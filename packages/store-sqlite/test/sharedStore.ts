/** The store that the processes of a history share; each of them imports this module. */
import { SqliteStore } from "@tidemark/store-sqlite"

export default (options: SqliteStore.SqliteStoreOptions) => SqliteStore.layer(options)
