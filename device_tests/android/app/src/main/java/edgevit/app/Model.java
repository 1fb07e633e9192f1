package edgevit.app;

/** A loaded model: its contract, and logits of an input that was prepared as the contract says. */
interface Model {
  Contract contract();

  float[] logits(float[] input);

  void setThreads(int threads);
}
