"""A classifier over the mean of BERT's last layer, for HuggingFace's transformers.

Textrail writes this file beside the weights of such a classifier, because `BertForSequenceClassification` sees BERT's
pooler only. `AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True)` runs it. It needs
PyTorch and transformers, and nothing of Textrail.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import BertModel, BertPreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput


class BertMeanForSequenceClassification(BertPreTrainedModel):
    """BERT with one logit a class on the mean of its last layer over the tokens that are no padding."""

    # BERT's pooler is kept in the file for whoever wants the encoder alone.
    _keys_to_ignore_on_load_unexpected = [r"bert\.pooler\."]  # noqa: RUF012  # transformers' own form

    def __init__(self, config: Any):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.bert = BertModel(config, add_pooling_layer=False)
        rate = getattr(config, "classifier_dropout", None)
        self.dropout = torch.nn.Dropout(config.hidden_dropout_prob if rate is None else rate)
        self.mean_classifier = torch.nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def forward(self, input_ids: Any = None, attention_mask: Any = None, token_type_ids: Any = None,
                position_ids: Any = None, inputs_embeds: Any = None, labels: Any = None, **options: Any) -> Any:
        """Logits [batch, classes]; with labels [batch] also their mean cross entropy."""
        options["return_dict"] = True
        outputs = self.bert(input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids,
                            position_ids=position_ids, inputs_embeds=inputs_embeds, **options)
        hidden = outputs.last_hidden_state  # [batch, length, hidden]
        mask = torch.ones_like(hidden[..., 0]) if attention_mask is None else attention_mask.to(hidden.dtype)
        total = (hidden * mask[..., None]).sum(1)  # [batch, hidden]
        pooled = total / mask.sum(1, keepdim=True).clamp(min=1)  # [batch, hidden]
        logits = self.mean_classifier(self.dropout(pooled))  # [batch, classes]
        loss = None if labels is None else torch.nn.functional.cross_entropy(logits, labels)
        return SequenceClassifierOutput(loss=loss, logits=logits, hidden_states=outputs.hidden_states,
                                        attentions=outputs.attentions)
