package edgevit.app;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertFalse;
import static org.junit.Assert.assertNotNull;
import static org.junit.Assert.assertTrue;
import static org.robolectric.Shadows.shadowOf;

import android.app.Activity;
import android.content.Intent;
import android.graphics.Bitmap;
import android.graphics.Color;
import android.net.Uri;
import android.os.Looper;
import android.provider.MediaStore;
import android.view.View;
import android.widget.Button;
import android.widget.ImageView;
import android.widget.TextView;
import java.io.File;
import java.io.OutputStream;
import java.nio.file.Files;
import org.junit.After;
import org.junit.Rule;
import org.junit.Test;
import org.junit.rules.TemporaryFolder;
import org.junit.runner.RunWith;
import org.robolectric.Robolectric;
import org.robolectric.RobolectricTestRunner;

/** The app's one screen, with a model that always answers the same. */
@RunWith(RobolectricTestRunner.class)
public final class MainActivityTest {
  private static final long PATIENCE_MS = 60_000;

  @Rule public final TemporaryFolder folder = new TemporaryFolder();
  private final MainActivity.Engine real = MainActivity.engine;

  @After
  public void restore() {
    MainActivity.engine = real;
  }

  @Test
  public void aPictureBecomesTheFiveBestWithProbabilitiesAndTimes() throws Exception {
    Contract contract = Contracts.valid();
    MainActivity.engine = context -> new Constant(contract);
    MainActivity activity = started("Take a photo or choose a picture.");
    assertTrue(text(activity, R.id.model).startsWith("model, version 1.2.3; loaded in "));

    activity.classify(picture());
    until(activity, "dog, 60 %");
    String[] lines = text(activity, R.id.answer).split("\n");
    assertEquals(5, lines.length);
    assertEquals("1. dog: 60.0 %", lines[0]);
    assertTrue(text(activity, R.id.latency).matches(
        "Preparing the picture [0-9.]+ ms. First run [0-9.]+ ms, later runs .* \\(median of 5\\)."));
    assertNotNull(((ImageView) activity.findViewById(R.id.picture)).getDrawable());
  }

  @Test
  public void whatGoesWrongIsSaidInWords() throws Exception {
    MainActivity.engine =
        context -> {
          throw new ContractException("model.ptl is not the released file");
        };
    MainActivity activity =
        started("The model cannot be used. model.ptl is not the released file");
    assertFalse(activity.findViewById(R.id.camera).isEnabled());
  }

  @Test
  public void aFileThatIsNoPictureIsSaidInWords() throws Exception {
    Contract contract = Contracts.valid();
    MainActivity.engine = context -> new Constant(contract);
    MainActivity activity = started("Take a photo or choose a picture.");
    File file = folder.newFile("no.jpg");
    Files.write(file.toPath(), new byte[] {1, 2, 3});
    activity.classify(Uri.fromFile(file));
    until(activity, "This picture cannot be classified. Android cannot decode it");
  }

  @Test
  public void aScreenReaderHasAllItNeeds() throws Exception {
    Contract contract = Contracts.valid();
    MainActivity.engine = context -> new Constant(contract);
    MainActivity activity = started("Take a photo or choose a picture.");
    assertEquals(
        View.ACCESSIBILITY_LIVE_REGION_POLITE,
        activity.findViewById(R.id.status).getAccessibilityLiveRegion());
    for (int view : new int[] {R.id.picture, R.id.threads}) {
      assertNotNull(activity.findViewById(view).getContentDescription());
    }
    for (int view : new int[] {R.id.camera, R.id.gallery}) {
      assertTrue(((Button) activity.findViewById(view)).getText().length() > 0);
    }
  }

  @Test
  public void theButtonsAskTheCameraAndTheGallery() throws Exception {
    Contract contract = Contracts.valid();
    MainActivity.engine = context -> new Constant(contract);
    MainActivity activity = started("Take a photo or choose a picture.");
    activity.findViewById(R.id.camera).performClick();
    Intent camera = shadowOf(activity).getNextStartedActivity();
    assertEquals(MediaStore.ACTION_IMAGE_CAPTURE, camera.getAction());
    Uri uri = camera.getParcelableExtra(MediaStore.EXTRA_OUTPUT);
    assertEquals("edgevit.app.capture", uri.getAuthority());
    assertTrue((camera.getFlags() & Intent.FLAG_GRANT_WRITE_URI_PERMISSION) != 0);
    activity.findViewById(R.id.gallery).performClick();
    assertEquals(
        Intent.ACTION_GET_CONTENT, shadowOf(activity).getNextStartedActivity().getAction());
  }

  /** The answer is the second label, at 60%, and 8% for each of five others. */
  private static final class Constant implements Model {
    private final Contract contract;

    Constant(Contract contract) {
      this.contract = contract;
    }

    @Override
    public Contract contract() {
      return contract;
    }

    @Override
    public float[] logits(float[] input) {
      assertEquals(contract.inputLength(), input.length);
      return new float[] {0, (float) Math.log(7.5), 0, 0, 0, 0};
    }

    @Override
    public void setThreads(int threads) {}
  }

  private static MainActivity started(String status) throws InterruptedException {
    MainActivity activity = Robolectric.buildActivity(MainActivity.class).setup().get();
    until(activity, status);
    return activity;
  }

  /** Let the model's thread and the screen's do their work, until the status says so. */
  private static void until(MainActivity activity, String status) throws InterruptedException {
    long end = System.currentTimeMillis() + PATIENCE_MS;
    while (!text(activity, R.id.status).equals(status) && System.currentTimeMillis() < end) {
      Thread.sleep(10);
      shadowOf(Looper.getMainLooper()).idle();
    }
    assertEquals(status, text(activity, R.id.status));
  }

  private static String text(Activity activity, int view) {
    return ((TextView) activity.findViewById(view)).getText().toString();
  }

  private Uri picture() throws Exception {
    Bitmap image = Bitmap.createBitmap(301, 203, Bitmap.Config.ARGB_8888);
    image.eraseColor(Color.rgb(200, 120, 40));
    File file = folder.newFile("picture.png");
    try (OutputStream out = Files.newOutputStream(file.toPath())) {
      image.compress(Bitmap.CompressFormat.PNG, 100, out);
    }
    return Uri.fromFile(file);
  }
}
