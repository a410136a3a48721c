/** The store that the processes of a history share; each of them imports this module. */
import { RedisStore } from "@tidemark/store-redis"

export default (options: RedisStore.RedisStoreOptions) => RedisStore.layer(options)
