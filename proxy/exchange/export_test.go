package exchange

// ExchangesTurn is for tests.
const ExchangesTurn = exchangesTurn
