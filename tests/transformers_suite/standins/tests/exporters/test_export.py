"""Stand-in for transformers' export tests: one static `torch.export` of each class, compared with the eager model."""

import torch


class ExportTesterMixin:
    test_torch_exportable = True

    def test_torch_export(self):
        if not self.test_torch_exportable:
            self.skipTest("test_torch_exportable=False")
        for model_class in self.all_model_classes:
            with self.subTest(model_class.__name__):
                config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
                model = model_class(config).eval()
                inputs = self._prepare_for_class(inputs, model_class)
                exported = torch.export.export(model, (), inputs, strict=False).module()
                with torch.no_grad():
                    torch.testing.assert_close(
                        exported(**inputs).to_tuple(), model(**inputs).to_tuple(), atol=1e-4, rtol=1e-4
                    )
