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

  /**
   * Softmax and sort; equal logits stay in the labels' order. With a threshold there is one logit:
   * its sigmoid is the probability of the second label, which comes first if above the threshold.
   */
  static List<Entry> of(float[] logits, List<String> labels, Double threshold)
      throws ContractException {
    int asked = threshold == null ? labels.size() : 1;
    if (logits.length != asked) {
      throw new ContractException(
          "The model gave " + logits.length + " numbers, its contract asks for " + asked + ".");
    }
    for (float logit : logits) {
      if (Float.isNaN(logit) || Float.isInfinite(logit)) {
        throw new ContractException("The model's answer is not a number.");
      }
    }
    // Softmax over 0 and a logit is the logit's sigmoid.
    float[] values = threshold == null ? logits : new float[] {0, logits[0]};
    float largest = Float.NEGATIVE_INFINITY;
    for (float value : values) largest = Math.max(largest, value);
    double sum = 0;
    for (float value : values) sum += Math.exp((double) value - largest);
    List<Entry> entries = new ArrayList<>();
    for (int i = 0; i < values.length; i++) {
      entries.add(new Entry(labels.get(i), Math.exp((double) values[i] - largest) / sum));
    }
    if (threshold == null) {
      Collections.sort(entries, (a, b) -> Double.compare(b.probability, a.probability));
    } else if (entries.get(1).probability > threshold) {
      Collections.reverse(entries);
    }
    return entries.subList(0, Math.min(SHOWN, entries.size()));
  }
}
