/** The driver on @platformatic/kafka, apart from the main entry: that can be imported without the library. */
export * as PlatformaticKafka from "./PlatformaticKafka.ts"
