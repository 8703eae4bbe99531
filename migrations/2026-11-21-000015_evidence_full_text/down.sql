drop index evidence_full_text_idx;
