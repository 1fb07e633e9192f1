package edgevit.app;

import java.util.ArrayList;
import java.util.Collections;
import java.util.List;

/** The likeliest labels of an answer. */
final class Ranking {
  static final int SHOWN = 5;

  /** A label and how likely it is, 0..1. */
  static final class Entry {
    final String label;
    final double probability;

    Entry(String label, double probability) {
      this.label = label;
      this.probability = probability;
    }
  }

  private Ranking() {}

  /** Softmax and sort; equal logits stay in the labels' order. */
  static List<Entry> of(float[] logits, List<String> labels) throws ContractException {
    if (logits.length != labels.size()) {
      throw new ContractException(
          "The model gave " + logits.length + " numbers for " + labels.size() + " labels.");
    }
    float largest = Float.NEGATIVE_INFINITY;
    for (float logit : logits) {
      if (Float.isNaN(logit) || Float.isInfinite(logit)) {
        throw new ContractException("The model's answer is not a number.");
      }
      largest = Math.max(largest, logit);
    }
    double sum = 0;
    for (float logit : logits) sum += Math.exp((double) logit - largest);
    List<Entry> entries = new ArrayList<>();
    for (int i = 0; i < logits.length; i++) {
      entries.add(new Entry(labels.get(i), Math.exp((double) logits[i] - largest) / sum));
    }
    Collections.sort(entries, (a, b) -> Double.compare(b.probability, a.probability));
    return entries.subList(0, Math.min(SHOWN, entries.size()));
  }
}
