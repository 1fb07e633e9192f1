package edgevit.app;

import android.app.Activity;
import android.content.ActivityNotFoundException;
import android.content.ClipData;
import android.content.Context;
import android.content.Intent;
import android.graphics.Bitmap;
import android.net.Uri;
import android.os.Bundle;
import android.os.Handler;
import android.os.Looper;
import android.os.SystemClock;
import android.provider.MediaStore;
import android.view.View;
import android.widget.AdapterView;
import android.widget.ArrayAdapter;
import android.widget.Button;
import android.widget.ImageView;
import android.widget.Spinner;
import android.widget.TextView;
import java.io.IOException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;

/** A picture from the camera or the gallery, and what the released model says it shows. */
public final class MainActivity extends Activity {
  /** Where the model comes from. */
  interface Engine {
    Model load(Context context) throws IOException, ContractException;
  }

  static final String RELEASE = "release/"; // folder of the assets
  private static final int CAMERA = 1;
  private static final int GALLERY = 2;
  private static final int LATER_RUNS = 5; // of each picture, for a median
  private static final int PREVIEW = 1024; // pixels; a view cannot draw a camera's whole picture
  private static final int[] THREADS = {1, 2, 4};

  static Engine engine =
      context ->
          new Classifier(
              Release.model(
                  name -> context.getAssets().open(RELEASE + name), context.getFilesDir()));

  // One thread owns the model: runs never overlap, and threads are set between them.
  private final ExecutorService worker = Executors.newSingleThreadExecutor();
  private final Handler ui = new Handler(Looper.getMainLooper());
  private Model model; // of the worker
  private Double firstMs; // of the worker: the first run, which packs the weights

  private interface Work {
    void run() throws IOException, ContractException;
  }

  @Override
  protected void onCreate(Bundle state) {
    super.onCreate(state);
    setContentView(R.layout.main);
    Button camera = (Button) findViewById(R.id.camera);
    Button gallery = (Button) findViewById(R.id.gallery);
    camera.setOnClickListener(view -> takePhoto());
    gallery.setOnClickListener(view -> choosePicture());
    offerThreads();
    say(getString(R.string.loading));
    work(
        R.string.cannot_load,
        () -> {
          long start = SystemClock.elapsedRealtimeNanos();
          model = engine.load(this);
          double loadMs = since(start);
          Contract contract = model.contract();
          show(
              () -> {
                setText(
                    R.id.model,
                    getString(R.string.model, contract.name, contract.version, loadMs));
                camera.setEnabled(true);
                gallery.setEnabled(true);
                say(getString(R.string.ready));
              });
        });
  }

  @Override
  protected void onDestroy() {
    worker.shutdown();
    super.onDestroy();
  }

  private void offerThreads() {
    Spinner spinner = (Spinner) findViewById(R.id.threads);
    List<Integer> offered = new ArrayList<>();
    for (int threads : THREADS) {
      if (threads <= Runtime.getRuntime().availableProcessors()) offered.add(threads);
    }
    ArrayAdapter<Integer> adapter =
        new ArrayAdapter<>(this, android.R.layout.simple_spinner_item, offered);
    adapter.setDropDownViewResource(android.R.layout.simple_spinner_dropdown_item);
    spinner.setAdapter(adapter);
    spinner.setOnItemSelectedListener(
        new AdapterView.OnItemSelectedListener() {
          @Override
          public void onItemSelected(AdapterView<?> parent, View view, int position, long id) {
            int threads = offered.get(position);
            work(
                R.string.cannot_load,
                () -> {
                  if (model != null) model.setThreads(threads);
                });
          }

          @Override
          public void onNothingSelected(AdapterView<?> parent) {}
        });
  }

  private void takePhoto() {
    Uri uri = CaptureProvider.uri(this);
    Intent intent = new Intent(MediaStore.ACTION_IMAGE_CAPTURE);
    intent.putExtra(MediaStore.EXTRA_OUTPUT, uri);
    intent.setClipData(ClipData.newRawUri("", uri)); // carries the permission below
    intent.addFlags(
        Intent.FLAG_GRANT_WRITE_URI_PERMISSION | Intent.FLAG_GRANT_READ_URI_PERMISSION);
    start(intent, CAMERA, R.string.no_camera);
  }

  private void choosePicture() {
    Intent intent = new Intent(Intent.ACTION_GET_CONTENT);
    intent.setType("image/*");
    intent.addCategory(Intent.CATEGORY_OPENABLE);
    start(intent, GALLERY, R.string.no_gallery);
  }

  private void start(Intent intent, int request, int otherwise) {
    try {
      startActivityForResult(intent, request);
    } catch (ActivityNotFoundException error) {
      say(getString(otherwise));
    }
  }

  @Override
  protected void onActivityResult(int request, int result, Intent data) {
    super.onActivityResult(request, result, data);
    if (result != RESULT_OK) return;
    Uri uri = request == CAMERA ? CaptureProvider.uri(this) : data == null ? null : data.getData();
    if (uri == null) say(getString(R.string.no_picture));
    else classify(uri);
  }

  /** Show a picture, and what the model makes of it. */
  void classify(Uri uri) {
    say(getString(R.string.working));
    work(
        R.string.cannot_read,
        () -> {
          if (model == null) throw new IOException(getString(R.string.no_model));
          Bitmap image = Photo.read(getContentResolver(), uri, model.contract());
          Bitmap preview = preview(image);
          show(() -> ((ImageView) findViewById(R.id.picture)).setImageBitmap(preview));
          long start = SystemClock.elapsedRealtimeNanos();
          float[] input = Preprocessor.apply(image, model.contract());
          double preparedMs = since(start);
          double[] laterMs = new double[LATER_RUNS];
          float[] logits = null;
          if (firstMs == null) {
            start = SystemClock.elapsedRealtimeNanos();
            model.logits(input);
            firstMs = since(start);
          }
          for (int i = 0; i < LATER_RUNS; i++) {
            start = SystemClock.elapsedRealtimeNanos();
            logits = model.logits(input);
            laterMs[i] = since(start);
          }
          Arrays.sort(laterMs);
          Contract contract = model.contract();
          List<Ranking.Entry> best = Ranking.of(logits, contract.labels, contract.threshold);
          double first = firstMs;
          show(() -> answer(best, preparedMs, first, laterMs[LATER_RUNS / 2]));
        });
  }

  private void answer(List<Ranking.Entry> best, double prepared, double first, double later) {
    StringBuilder lines = new StringBuilder();
    for (int i = 0; i < best.size(); i++) {
      Ranking.Entry entry = best.get(i);
      if (i > 0) lines.append('\n');
      lines.append(getString(R.string.entry, i + 1, entry.label, 100 * entry.probability));
    }
    setText(R.id.answer, lines);
    setText(R.id.latency, getString(R.string.latency, prepared, first, later, LATER_RUNS));
    say(getString(R.string.done, best.get(0).label, 100 * best.get(0).probability));
  }

  private static Bitmap preview(Bitmap image) {
    double shrink = (double) PREVIEW / Math.max(image.getWidth(), image.getHeight());
    if (shrink >= 1) return image;
    int width = Math.max(1, (int) (image.getWidth() * shrink));
    int height = Math.max(1, (int) (image.getHeight() * shrink));
    return Bitmap.createScaledBitmap(image, width, height, true);
  }

  /** Run on the model's thread; what goes wrong is said in words. */
  private void work(int otherwise, Work work) {
    worker.execute(
        () -> {
          try {
            work.run();
          } catch (Exception | LinkageError | OutOfMemoryError error) {
            String reason = error.getMessage() == null ? error.toString() : error.getMessage();
            show(() -> say(getString(otherwise, reason)));
          }
        });
  }

  private void show(Runnable change) {
    ui.post(
        () -> {
          if (!isDestroyed()) change.run();
        });
  }

  /** The status is a live region: a screen reader says it by itself. */
  private void say(String text) {
    setText(R.id.status, text);
  }

  private void setText(int view, CharSequence text) {
    ((TextView) findViewById(view)).setText(text);
  }

  private static double since(long start) {
    return (SystemClock.elapsedRealtimeNanos() - start) / 1e6;
  }
}
