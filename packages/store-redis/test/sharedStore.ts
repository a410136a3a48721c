/** The store that the processes of a history share; each of them imports this module. */
import { RedisStore } from "../src/index.ts"

export default (options: RedisStore.RedisConnectionOptions) => RedisStore.layer(options)
