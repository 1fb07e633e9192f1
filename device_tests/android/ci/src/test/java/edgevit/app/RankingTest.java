package edgevit.app;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertThrows;
import static org.junit.Assert.assertTrue;

import java.util.Arrays;
import java.util.List;
import org.junit.Test;

public final class RankingTest {
  private static final List<String> LABELS = Arrays.asList("a", "b", "c", "d", "e", "f");

  @Test
  public void fiveBestWithProbabilities() throws Exception {
    List<Ranking.Entry> best =
        Ranking.of(new float[] {0, (float) Math.log(3), 0, (float) Math.log(4), -90, 0}, LABELS, null);
    assertEquals(5, best.size());
    assertEquals("d", best.get(0).label);
    assertEquals("b", best.get(1).label);
    assertEquals("a", best.get(2).label); // equal ones keep their order
    assertEquals(0.4, best.get(0).probability, 1e-6);
    assertEquals(0.3, best.get(1).probability, 1e-6);
  }

  @Test
  public void largeLogitsDoNotOverflow() throws Exception {
    List<Ranking.Entry> best = Ranking.of(new float[] {3e38f, 0}, LABELS.subList(0, 2), null);
    assertEquals(2, best.size());
    assertEquals(1.0, best.get(0).probability, 0);
  }

  @Test
  public void oneLogitIsYesAboveTheThreshold() throws Exception {
    List<String> labels = LABELS.subList(0, 2);
    float[] yes = {(float) Math.log(4)}; // 80%
    List<Ranking.Entry> best = Ranking.of(yes, labels, 0.5);
    assertEquals("b", best.get(0).label);
    assertEquals(0.8, best.get(0).probability, 1e-6);
    assertEquals(0.2, best.get(1).probability, 1e-6);
    best = Ranking.of(yes, labels, 0.9);
    assertEquals("a", best.get(0).label);
    assertEquals(0.2, best.get(0).probability, 1e-6);
    assertEquals("a", Ranking.of(new float[] {0}, labels, 0.5).get(0).label);
    assertThrows(ContractException.class, () -> Ranking.of(new float[] {0, 1}, labels, 0.5));
  }

  @Test
  public void whatIsNoAnswerIsRefused() {
    assertTrue(refusal(1, Float.NaN).contains("not a number"));
    assertTrue(refusal(1, 2, 3).contains("3 numbers, its contract asks for 2"));
  }

  private static String refusal(float... logits) {
    return assertThrows(
            ContractException.class, () -> Ranking.of(logits, LABELS.subList(0, 2), null))
        .getMessage();
  }
}
