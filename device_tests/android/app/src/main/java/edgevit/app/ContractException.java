package edgevit.app;

/** What the app cannot do for a model, or why what it was given is no released model; in words. */
final class ContractException extends Exception {
  ContractException(String message) {
    super(message);
  }
}
