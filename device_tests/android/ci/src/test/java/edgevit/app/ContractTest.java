package edgevit.app;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertNull;
import static org.junit.Assert.assertThrows;
import static org.junit.Assert.assertTrue;

import org.json.JSONArray;
import org.json.JSONObject;
import org.junit.Test;
import org.junit.runner.RunWith;
import org.robolectric.RobolectricTestRunner;

@RunWith(RobolectricTestRunner.class)
public final class ContractTest {
  private static String refusal(String json) {
    return assertThrows(ContractException.class, () -> Contract.parse(json)).getMessage();
  }

  private static String refusalOf(String key, Object value) throws Exception {
    JSONObject json = Contracts.json();
    json.getJSONObject("preprocessing").put(key, value);
    return refusal(json.toString());
  }

  @Test
  public void isRead() throws Exception {
    Contract contract = Contracts.valid();
    assertEquals(248, contract.resize);
    assertEquals(Resampler.Filter.BICUBIC, contract.filter);
    assertEquals((float) 0.406, contract.mean[2], 0);
    assertEquals("dog", contract.labels.get(1));
    assertEquals(3 * 224 * 224, contract.inputLength());
    assertTrue(contract.upright);
    assertEquals(0xFFFFFFFF, contract.background);
  }

  @Test
  public void aSigmoidHasAThresholdAndTwoLabels() throws Exception {
    JSONObject json = Contracts.json().put("activation", "sigmoid").put("threshold", 0.7);
    assertTrue(refusal(json.toString()).contains("two labels"));
    json.put("labels", new JSONArray("[\"no\", \"yes\"]"));
    assertEquals(0.7, Contract.parse(json.toString()).threshold, 0);
    assertTrue(refusal(json.put("threshold", 1).toString()).contains("threshold"));
    assertTrue(refusal(json.put("activation", "tanh").toString()).contains("activation tanh"));
    assertNull(Contracts.valid().threshold);
  }

  @Test
  public void noContractIsSaidInWords() {
    assertTrue(refusal("").contains("carries no contract"));
    assertTrue(refusal("{").contains("cannot be read"));
    assertTrue(refusal("{}").contains("schema"));
  }

  @Test
  public void whatTheAppLacksIsNamed() throws Exception {
    assertTrue(refusalOf("interpolation", "lanczos").contains("interpolation lanczos"));
    assertTrue(refusalOf("crop_mode", "border").contains("crop_mode border"));
    assertTrue(refusalOf("colour_order", "YUV").contains("colour_order YUV"));
    assertTrue(refusalOf("size", new JSONArray("[224, 192]")).contains("input_shape"));
    assertTrue(refusalOf("orientation", "left").contains("orientation left"));
    assertTrue(refusalOf("background", new JSONArray("[0, 0, 256]")).contains("background"));
    assertTrue(refusalOf("sharpen", 1).contains("step sharpen"));
    assertTrue(refusalOf("std", new JSONArray("[0, 1, 1]")).contains("std"));
    assertTrue(refusal(Contracts.json().put("dtype", "uint8").toString()).contains("dtype uint8"));
    assertTrue(refusal(Contracts.json().put("schema", 2).toString()).contains("schema is 2"));
  }
}
